"""Leaving, forgetting, forking and interrupting a producer."""

import asyncio
import inspect
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tailrace import AsyncProducer
from tailrace.client.admin import Admin
from tailrace.producer import Producer
from tailrace.protocol.errors import ClosedError, DeliveryFailedError, TailraceError, TimedOutError
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended
from .conftest import MakeProducer, Read


def test_leaving_delivers_without_waiting_for_linger(cluster: Cluster, topic: MakeTopic, read: Read) -> None:
    name = topic()
    started = time.monotonic()
    with Producer(cluster.bootstrap_servers, linger_ms=60_000) as writer:
        writer.send(name, b"x")
    assert time.monotonic() - started < BUSY_S
    assert len(read(name)[0]) == 1


def test_repr_tells_which_one_it_is(cluster: Cluster) -> None:
    servers = cluster.bootstrap_servers
    with Producer(servers, client_id="w") as writer:
        assert repr(writer) == f"<Producer w of {servers}: open>"
    assert repr(writer) == f"<Producer w of {servers}: closed>"
    async_writer = AsyncProducer(servers, client_id="w")
    assert repr(async_writer) == f"<AsyncProducer w of {servers}: open>"
    asyncio.run(async_writer.close())


def too_late() -> int:
    """A timestamp that no node takes."""
    return (int(time.time()) + 7_200) * 1_000


def test_leaving_raises_if_something_was_not_stored(cluster: Cluster, topic: MakeTopic) -> None:
    with pytest.raises(DeliveryFailedError, match="1 record not acknowledged"):  # noqa: SIM117
        with Producer(cluster.bootstrap_servers) as writer:
            writer.send(topic(), b"x", timestamp_ms=too_late())


def test_leaving_never_masks_an_exception(cluster: Cluster, topic: MakeTopic) -> None:
    with pytest.raises(ZeroDivisionError) as left:  # noqa: PT012, SIM117
        with Producer(cluster.bootstrap_servers, client_id="w") as writer:
            writer.send(topic(), b"x", timestamp_ms=too_late())
            raise ZeroDivisionError
    assert left.value.__notes__[0].startswith("and w: 1 record not acknowledged")


def test_close_gives_up_after_its_timeout(producer: MakeProducer, topic: MakeTopic, cluster: Cluster) -> None:
    name = topic()
    writer = producer()
    writer.send(name, b"x").result(PATIENCE_S)
    with suspended(cluster.pid(1)):
        sent = writer.send(name, b"y")
        with pytest.raises(TimedOutError, match=r"no answer within 0\.1 s"):
            sent.result(0.1)
        with pytest.raises(TimedOutError, match=r"1 batch got no answer within 0\.1 s"):
            writer.flush(0.1)
        with pytest.raises(DeliveryFailedError, match="closed"):
            writer.close(0.1)
    with pytest.raises(ClosedError, match="may or may not be stored"):
        sent.result(0)


def test_what_others_send_while_it_closes_is_refused_or_stored(
    producer: MakeProducer, topic: MakeTopic, cluster: Cluster, read: Read
) -> None:
    name = topic()
    writer = producer()
    taken = [writer.send(name, b"x")]
    taken[0].result(PATIENCE_S)
    failures: list[BaseException | None] = []

    def close() -> None:
        try:
            writer.close()
            failures.append(None)
        except TailraceError as error:
            failures.append(error)

    def refused() -> bool:
        try:
            taken.append(writer.send(name, b"x"))
        except ClosedError:
            return True
        return False

    closing = threading.Thread(target=close)
    with suspended(cluster.pid(1)):
        taken.append(writer.send(name, b"x"))
        closing.start()
        wait_until(refused, "it takes no more", BUSY_S)
        assert not writer.closed
    closing.join(PATIENCE_S)
    assert failures == [None]
    assert [each.result(0).offset for each in taken] == list(range(len(taken)))
    assert len(read(name)[0]) == len(taken)


def test_a_forgotten_producer_delivers_and_ends(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = Producer(producer()._engine.bootstrap.endpoints[0], linger_ms=60_000, client_id="forgotten")
    sent = writer.send(name, b"x")
    with pytest.warns(ResourceWarning, match="forgotten was not closed"):
        del writer
    assert sent.result(PATIENCE_S).offset == 0
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name == "forgotten" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_end_of_the_interpreter_delivers(cluster: Cluster, topic: MakeTopic, read: Read) -> None:
    name = topic()
    script = """
        import sys
        from tailrace.producer import Producer
        producer = Producer(sys.argv[1], linger_ms=60_000)
        producer.send_many(sys.argv[2], [b"x"] * 1_000)
    """
    ended = run(script, cluster.bootstrap_servers, name)
    assert ended.returncode == 0, ended.stderr
    assert len(read(name)[0]) == 1_000


def test_the_end_of_the_interpreter_delivers_what_is_not_copied(
    cluster: Cluster, topic: MakeTopic, read: Read
) -> None:
    """As large batches over TCP, which pyzmq keeps until they are out: its end is to come after ours."""
    name = topic()
    script = """
        import sys
        from tailrace.client import link
        from tailrace.producer import Producer
        link.choose = lambda listener: listener.tcp
        producer = Producer(sys.argv[1], linger_ms=60_000)
        for _ in range(2):
            producer.send(sys.argv[2], bytes(200_000))
            if not producer.metrics()["records_acked"]:
                producer.flush()
    """
    ended = run(script, cluster.bootstrap_servers, name)
    assert ended.returncode == 0, ended.stderr
    assert len(read(name)[0]) == 2, ended.stderr


def test_the_end_of_the_interpreter_closes_also_what_has_failed(cluster: Cluster, topic: MakeTopic) -> None:
    script = """
        import atexit, sys
        atexit.register(lambda: print(producer.closed))  # runs after the producers' own, which comes later
        from tailrace.producer import Producer
        producer = Producer(sys.argv[1], client_id="open", delivery_timeout_ms=300)
        producer.partitions_for(sys.argv[2])
        print("known", flush=True)
        sys.stdin.readline()
        producer.send(sys.argv[2], b"x")
    """
    command = [sys.executable, "-W", "default", "-c", textwrap.dedent(script)]
    command += [cluster.bootstrap_servers, topic()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "known\n"
        with suspended(cluster.pid(1)):
            printed, told = process.communicate("go\n", PATIENCE_S)
    assert "open was not closed: 1 record not acknowledged" in told
    assert "ResourceWarning: open was not closed" in told
    assert printed == "True\n"


def test_the_end_of_the_interpreter_says_what_it_waits_for(
    cluster: Cluster, topic: MakeTopic, read: Read
) -> None:
    name = topic()
    script = """
        import sys
        from tailrace.producer import Producer
        producer = Producer(sys.argv[1])
        producer.send(sys.argv[2], b"x")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), cluster.bootstrap_servers, name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        with suspended(cluster.pid(1)):
            told = process.stderr.readline()
            assert "waits for 1 batch to be stored: " in told
            assert told.endswith("; trying for 120 s, Ctrl-C ends it\n")
        assert process.wait(PATIENCE_S) == 0
    assert [record.value for record in read(name)[0]] == [b"x"]


def test_what_is_not_delivered_in_time_tells_that_the_leader_cannot_be_reached() -> None:
    options: dict[str, Any] = {"acks": 1, "delivery_timeout_ms": 500}  # another waits for a producer id first
    with Cluster(nodes=1) as cluster, Producer(cluster.bootstrap_servers, **options) as writer:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t")
        writer.partitions_for("t")
        cluster.kill_coordinator()  # first, so that the node counts as alive
        cluster.kill(1)
        sent = writer.send("t", b"x")
        with pytest.raises(TimedOutError, match="node 1 leads the partition, there is no connection to it"):
            sent.result(PATIENCE_S)
        with pytest.raises(DeliveryFailedError):
            writer.flush()


def test_a_fork_is_told_and_the_parent_goes_on(cluster: Cluster, topic: MakeTopic, read: Read) -> None:
    name = topic()
    script = """
        import os, sys
        from tailrace.producer import Producer
        from tailrace.protocol.errors import ClosedError
        producer = Producer(sys.argv[1], linger_ms=60_000)
        sent = producer.send(sys.argv[2], b"parent")
        pid = os.fork()
        if pid == 0:
            calls = [
                lambda: producer.send(sys.argv[2], b"child"),
                lambda: producer.send_many(sys.argv[2], [b"child"]),
                lambda: producer.flush(),
                lambda: sent.result(5),
            ]
            told = 0
            for call in calls:
                try:
                    call()
                except ClosedError as error:
                    told += "fork" in str(error)
            producer.close()
            with Producer(sys.argv[1]) as own:
                own.send(sys.argv[2], b"child's own")
            os._exit(0 if told == len(calls) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        producer.close()
        sent.result(0)
    """
    ended = run(script, cluster.bootstrap_servers, name)
    assert ended.returncode == 0, ended.stderr
    assert sorted(record.value for record in read(name)[0]) == [b"child's own", b"parent"]


def to_the_process() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def to_another_thread() -> None:
    """Which ends no wait of the main thread, as one does not that comes just before the wait."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def test_a_record_that_nobody_was_told_of_is_told_of_with_the_next(
    producer: MakeProducer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, writer = topic(), producer()
    writer.send(name, b"x").result(PATIENCE_S)
    busy, end = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        end.wait(PATIENCE_S)

    writer._engine.submit(work)  # so that the I/O thread does not come by itself
    assert busy.wait(PATIENCE_S)
    alarm = writer._accumulator.alarm
    wake, attempts = alarm.wake, 0

    def twice_interrupted() -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise KeyboardInterrupt
        wake()

    monkeypatch.setattr(alarm, "wake", twice_interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.send(name, b"a")
    behind = writer.send(name, b"b")
    assert attempts == 3
    end.set()
    assert behind.result(PATIENCE_S).offset == 2


def interrupted(call: Callable[[], object], ctrl_c: Callable[[], None]) -> float:
    """Ctrl-C into a call that has gone on for 100 ms; how long it lasted."""
    timer = threading.Timer(0.1, ctrl_c)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        timer.start()
        call()
    timer.join()
    return time.monotonic() - started


@pytest.mark.parametrize("ctrl_c", [to_the_process, to_another_thread])
def test_ctrl_c_in_every_call_that_blocks(
    producer: MakeProducer, topic: MakeTopic, cluster: Cluster, ctrl_c: Callable[[], None]
) -> None:
    name = topic()
    writer = producer(buffer_memory=1 << 16, linger_ms=0)
    writer.send(name, b"x").result(PATIENCE_S)
    unreachable = producer(bootstrap_servers="127.0.0.1:1")
    with suspended(cluster.pid(1)):
        sent = writer.send(name, b"x" * 60_000)
        many = writer.send_many(name, [b"x"])
        for call in (
            lambda: sent.result(30),
            lambda: sent.exception(),
            lambda: many.result(),
            lambda: writer.flush(),
            lambda: writer.send(name, b"x" * 10_000),
            lambda: writer.send_many(name, [b"x" * 10_000]),
            lambda: unreachable.send(name, b"x"),
            lambda: unreachable.partitions_for(name),
            lambda: writer.close(),
        ):
            assert 0.09 < interrupted(call, ctrl_c) < 0.1 + BUSY_S
    with pytest.raises(TailraceError):
        writer.send(name, b"x")


class AlarmError(Exception):
    """What the storm below raises inside `send` and `send_many`."""


class Storm:
    """Alarms 0.1 to 0.5 ms apart; they raise AlarmError where they meet the producer's own code."""

    _home = Path(inspect.getfile(Producer)).parent

    def __init__(self) -> None:
        self.hits = 0
        self._over = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._ring)
        self._time_limit = self.arm()  # the test's own: its handler would fail the test for an alarm of ours
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True  # an alarm on its way rings into the void, and sets no other
        signal.setitimer(signal.ITIMER_REAL, *self._time_limit)
        signal.signal(signal.SIGALRM, self._before)

    def arm(self) -> tuple[float, float]:
        """Set the next alarm. To be called after an AlarmError."""
        return signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.0005))

    def _ring(self, _: int, frame: types.FrameType | None) -> None:
        if frame is not None and Path(frame.f_code.co_filename).parent == self._home:
            self.hits += 1
            raise AlarmError
        if not self._over:
            self.arm()


def test_signals_in_the_middle_of_sending_tear_nothing(
    producer: MakeProducer, topic: MakeTopic, read: Read
) -> None:
    """An exception of a signal handler may come between any two steps: a record is whole, or not there."""
    name = topic(2)
    writer = producer(batch_size=2_000)
    returned: set[bytes] = set()
    with Storm() as storm:
        for number in range(200_000):
            if storm.hits >= 100 and number >= 5_000:
                break
            key = b"%d" % number if number % 3 else None
            try:
                if number % 10:
                    writer.send(name, b"%d" % number, key)
                else:
                    writer.send_many(name, [b"%d" % number] * 2, None if key is None else [key] * 2)
                returned.add(b"%d" % number)
            except AlarmError:
                storm.arm()
    assert storm.hits >= 100
    writer.flush(PATIENCE_S)
    stored: Counter[bytes] = Counter()
    for records in read(name, 2):
        last = -1
        for record in records:
            number = int(record.value)
            assert record.key == (record.value if number % 3 else None)
            assert record.key is None or number >= last
            last = max(last, number)
            stored[record.value] += 1
    assert returned <= set(stored)
    assert all(times == 1 for value, times in stored.items() if int(value) % 10)
    assert writer.metrics()["buffer_used_bytes"] == 0
    writer.send(name, b"after").result(PATIENCE_S)
