"""Ctrl-C in every call that waits, and what a fork finds."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tailrace.consumer import Consumer
from tailrace.protocol.errors import ClosedError
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S
from ..suspended import suspended
from .conftest import Feeder

WAITING = """
    import sys, threading, time
    from tailrace import Consumer, TopicPartition

    servers, topic, call = sys.argv[1:]
    consumer = Consumer(topic, bootstrap_servers=servers)
    partition = TopicPartition(topic, 0)
    try:
        print("ready", flush=True)
        sys.stdin.readline()
        eval(call)
        print("returned", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    consumer.close()
    print("closed", flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "call",
    [
        "consumer.poll(None)",
        "consumer.poll(600_000)",
        "list(consumer)",
        "next(consumer.batches())",
        "next(consumer.batches(600_000))",
    ],
)
def test_ctrl_c_while_waiting_for_records(cluster: Cluster, feeder: Feeder, call: str) -> None:
    with start(WAITING, cluster.bootstrap_servers, feeder.topic(), call) as waiting:
        assert interrupted(waiting) == ["interrupted", "closed"]


@pytest.mark.parametrize(
    "call",
    [
        "consumer.seek_to_end()",
        "consumer.end_offsets([partition])",
        "consumer.offsets_for_times({partition: 1})",
        "consumer.lag()",
    ],
)
def test_ctrl_c_while_waiting_for_a_dead_node(call: str) -> None:
    with Cluster() as cluster:
        feeder = Feeder(cluster)
        topic = feeder.topic()
        feeder.close()
        with start(WAITING, cluster.bootstrap_servers, topic, call) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "ready\n"
            cluster.kill(1)
            assert interrupted(waiting, ready=True) == ["interrupted", "closed"]


def test_ctrl_c_while_subscribing_at_a_node_that_hangs() -> None:
    """A partition whose leader is known to be dead is not waited for."""
    with Cluster(session_timeout_ms=600_000) as cluster:
        feeder = Feeder(cluster)
        topic, other = feeder.topic(), feeder.topic()
        feeder.close()
        with start(WAITING, cluster.bootstrap_servers, topic, f"consumer.subscribe({other!r})") as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "ready\n"
            with suspended(cluster.pid(1)):
                assert interrupted(waiting, ready=True) == ["interrupted", "closed"]


def test_ctrl_c_that_does_not_wake_the_thread_that_waits(cluster: Cluster, feeder: Feeder) -> None:
    """As it is when it comes just before the wait begins; here another thread takes it."""
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    with Consumer(feeder.topic(), bootstrap_servers=cluster.bootstrap_servers) as consumer:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            timer.start()
            consumer.poll(None)
        timer.join()


def test_closed_by_a_signal_handler_within_a_wait(cluster: Cluster, feeder: Feeder) -> None:
    """The wait is over then, as when another thread has closed it."""
    consumer = Consumer(feeder.topic(), bootstrap_servers=cluster.bootstrap_servers)
    before = signal.signal(signal.SIGALRM, lambda *_: consumer.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(ClosedError):
            consumer.poll(None)
    finally:
        signal.signal(signal.SIGALRM, before)


CONNECTING = """
    import sys
    from tailrace import Consumer

    print("ready", flush=True)
    sys.stdin.readline()
    try:
        Consumer("orders", bootstrap_servers=sys.argv[1])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_while_connecting() -> None:
    with start(CONNECTING, "127.0.0.1:9") as connecting:
        assert interrupted(connecting) == ["interrupted"]


def interrupted(process: "subprocess.Popen[str]", *, ready: bool = False) -> list[str]:
    """Let the call begin, interrupt it; what the process said, which must not take long."""
    assert process.stdout is not None
    assert process.stdin is not None
    if not ready:
        assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    wait_until_waiting(process.pid)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stdout.read().split()
    assert time.monotonic() - started < BUSY_S
    return said


def wait_until_waiting(pid: int) -> None:
    """Until the main thread has read its line and sleeps again, in the call under test."""
    deadline = time.monotonic() + PATIENCE_S
    still = 0
    while still < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        where = Path(f"/proc/{pid}/wchan").read_text()
        still = still + 1 if "futex" in where or "poll" in where else 0


FORKING = """
    import os, sys
    from pathlib import Path
    from tailrace import Consumer, TopicPartition
    from tailrace.protocol.errors import ClosedError

    servers, topic, folder = sys.argv[1:]
    consumer = Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", offset_store=folder)
    assert len(consumer.poll(10_000, max_records=2)) == 1
    child = os.fork()
    if child == 0:
        for call in (consumer.poll, lambda: next(iter(consumer)), consumer.commit, consumer.lag):
            try:
                call()
            except ClosedError as error:
                print(error, flush=True)
        consumer.close()
        os._exit(0)
    os.waitpid(child, 0)
    (records,) = consumer.poll(10_000, max_records=1).values()
    assert records[0].offset == 2
    consumer.close()
    again = Consumer(topic, bootstrap_servers=servers, offset_store=folder)
    assert again.position(TopicPartition(topic, 0)) == 3
    again.close()
    print("done", flush=True)
"""


def test_a_fork_is_told_and_harms_nothing(cluster: Cluster, feeder: Feeder, tmp_path: Path) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(10))
    with start(FORKING, cluster.bootstrap_servers, topic, str(tmp_path)) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    *told, last = said.splitlines()
    assert last == "done"
    assert len(told) == 4
    assert all("was made before fork()" in line for line in told), told


@pytest.mark.parametrize("way", ["poll", "iterate"])
def test_an_interrupted_ask_hands_nothing_over(cluster: Cluster, feeder: Feeder, way: str) -> None:
    """Not even what it had taken before, from batches that were read through."""
    topic = feeder.topic(partitions=2)
    for start in range(0, 60, 5):
        feeder.send_numbers(topic, range(start, start + 5), partition=start % 2)
    to_come = [3, 8, 9, 31, 59]

    def number_of(value: bytes) -> int:
        if int(value) in to_come:
            to_come.remove(int(value))
            raise KeyboardInterrupt
        return int(value)

    seen: list[int] = []
    interrupts = 0
    servers = cluster.bootstrap_servers
    with Consumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", value_deserializer=number_of
    ) as consumer:
        while len(seen) < 60:
            try:
                if way == "iterate":
                    seen.extend(record.value for record in islice(consumer, 60 - len(seen)))
                for records in consumer.poll(1_000).values() if way == "poll" else ():
                    seen.extend(record.value for record in records)
            except KeyboardInterrupt:
                interrupts += 1
    assert sorted(seen) == list(range(60))
    assert interrupts == 5


class InterruptionError(BaseException):
    """Raised by a signal handler at any point of the main thread, as KeyboardInterrupt is."""


def number_of(value: bytes) -> int:
    """A deserializer that takes long enough to be interrupted."""
    return sum(1 for _ in range(int(value)))


# What is raised in such a call, Python drops.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function WeakSet")
@pytest.mark.parametrize("way", ["poll", "iterate"])
def test_interrupts_at_any_point_lose_nothing_with_a_store(
    cluster: Cluster, feeder: Feeder, tmp_path: Path, way: str
) -> None:
    topic = feeder.topic()
    for start in range(0, 3_000, 20):
        feeder.send_numbers(topic, range(start, start + 20))
    armed = False

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise InterruptionError

    def read(seen: list[int]) -> None:
        nonlocal armed
        with Consumer(
            topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest",
            offset_store=tmp_path, auto_commit_interval_ms=1, max_poll_records=7, consumer_timeout_ms=1_000,
            value_deserializer=number_of,
        ) as consumer:  # fmt: skip
            armed = True
            timer = threading.Timer(random.random() * 0.015, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            try:
                if way == "iterate":
                    seen.extend(record.value for record in consumer)
                while way == "poll" and (polled := consumer.poll(1_000)):
                    for records in polled.values():
                        seen.extend(record.value for record in records)
            finally:
                armed = False
                timer.join()

    random = Random(0)
    before = signal.signal(signal.SIGUSR1, interrupt)
    seen: list[int] = []
    try:
        while 2_999 not in seen:
            first = len(seen)
            with suppress(InterruptionError):
                read(seen)
            assert seen[first:] == [number for number, _ in enumerate(seen[first:], *seen[first : first + 1])]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(set(seen)) == list(range(3_000))
