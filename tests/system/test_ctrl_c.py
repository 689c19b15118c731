"""Ctrl-C in every call that waits: KeyboardInterrupt at once, and a process that ends cleanly.

A script is made to wait by suspending the process that would answer it. Calls that wait for records, or
for a node that is dead, are interrupted in tests/consumer/test_interrupts.py; commands that work in
tests/cli. What is listed nowhere does not wait.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended

STEADY_LOOKS = 4
LOOK_EVERY_S = 0.02

SCRIPT = """
import contextlib, sys
from tailrace import Admin, Consumer, Producer, TailraceError, TopicPartition

servers, topic = sys.argv[1:]
place = TopicPartition(topic, 0)
{before}
print("prepared", flush=True)
sys.stdin.readline()
print("begins", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
{after}
print("ended", flush=True)
"""

ADMIN = ("admin = Admin(servers); admin.list_topics()", "admin.close()")
CONSUMER = ("consumer = Consumer(topic, bootstrap_servers=servers)", "consumer.close()")
NEW_PRODUCER = ("", "producer.close()")
PRODUCER = (
    "producer = Producer(servers, buffer_memory=65_536); producer.send(topic, b'x').result()",
    "with contextlib.suppress(TailraceError): producer.close(0)",
)
NOTHING = ("", "")

WITHOUT_A_COORDINATOR = {
    "admin.ready()": ADMIN,
    "admin.create_topic('new')": ADMIN,
    "admin.delete_topic(topic)": ADMIN,
    "admin.list_topics()": ADMIN,
    "admin.describe_topic(topic)": ADMIN,
    "admin.describe_topics()": ADMIN,
    "admin.describe_cluster()": ADMIN,
    "producer = Producer(servers); producer.send(topic, b'x')": NEW_PRODUCER,
    "producer = Producer(servers); producer.send_many(topic, [b'x'])": NEW_PRODUCER,
    "producer = Producer(servers); producer.partitions_for(topic)": NEW_PRODUCER,
    "Consumer(topic, bootstrap_servers=servers)": NOTHING,
    "consumer.subscribe('unknown')": CONSUMER,
    "consumer.assign([('unknown', 0)])": CONSUMER,
    "consumer.partitions_for_topic('unknown')": CONSUMER,
}
WITHOUT_A_NODE = {
    "admin.create_topic(topic + '-new')": ADMIN,
    "admin.describe_logs()": ADMIN,
    "admin.list_offsets({place: Admin.LATEST})": ADMIN,
    "producer.send(topic, b'x' * 60_000); producer.send(topic, b'x' * 10_000)": PRODUCER,
    "producer.send(topic, b'x' * 60_000); producer.send_many(topic, [b'x' * 10_000])": PRODUCER,
    "producer.send(topic, b'x'); producer.flush()": PRODUCER,
    "producer.send(topic, b'x'); producer.close()": PRODUCER,
    "producer.send(topic, b'x').result()": PRODUCER,
    "producer.send_many(topic, [b'x']).result()": PRODUCER,
    "with producer: producer.send(topic, b'x')": PRODUCER,
    "Consumer(topic, bootstrap_servers=servers)": NOTHING,
    "consumer.unsubscribe(); consumer.assign([place])": CONSUMER,
    "consumer.beginning_offsets([place])": CONSUMER,
    "consumer.seek_to_beginning()": CONSUMER,
    "consumer.poll(None)": CONSUMER,
}

_numbers = count(1)


@pytest.fixture(scope="module")
def fragile() -> Iterator[Cluster]:
    """A cluster of which these tests suspend one process or another."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def name(fragile: Cluster) -> str:
    """A topic that is there."""
    name = f"t{next(_numbers)}"
    with Admin(fragile.bootstrap_servers) as admin:
        admin.create_topic(name, partitions=2)
    return name


def start(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_waits(process: "subprocess.Popen[str]") -> None:
    """Until the main thread sleeps, and nothing has woken it for a while; there are others by then."""
    threads = Path(f"/proc/{process.pid}/task")
    seen: list[str] = []

    def steady() -> bool:
        time.sleep(LOOK_EVERY_S)
        assert process.poll() is None, process.communicate()
        status = (threads / f"{process.pid}" / "status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        waits = fields["State"].startswith("S") and len(list(threads.iterdir())) > 1
        seen.append(fields["voluntary_ctxt_switches"] if waits else "")
        return waits and seen[-STEADY_LOOKS:] == [seen[-1]] * STEADY_LOOKS

    wait_until(steady, "the call waits")


def interrupt(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Ctrl-C; what the process said until its end, which must come at once."""
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - started < BUSY_S, said
    return said


def check(fragile: Cluster, topic: str, call: str, around: tuple[str, str], silent: int) -> None:
    before, after = around
    script = SCRIPT.format(before=before, call=call, after=after)
    with start("-W", "error", "-c", script, fragile.bootstrap_servers, topic) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "prepared\n"
        with suspended(silent):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "begins\n"
            wait_until_it_waits(process)
            assert interrupt(process) == ("interrupted\nended\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("call", WITHOUT_A_COORDINATOR)
def test_without_a_coordinator(fragile: Cluster, name: str, call: str) -> None:
    check(fragile, name, call, WITHOUT_A_COORDINATOR[call], fragile.coordinator_pid)


@pytest.mark.parametrize("call", WITHOUT_A_NODE)
def test_without_a_node(fragile: Cluster, name: str, call: str) -> None:
    check(fragile, name, call, WITHOUT_A_NODE[call], fragile.pid(1))


UNCAUGHT = """
import sys
from tailrace import Admin, Consumer, Producer

servers, topic = sys.argv[1:]
with {client} as client:
    print("begins", flush=True)
    {call}
"""


@pytest.mark.parametrize(
    ("client", "call"),
    [
        ("Admin(servers)", "client.list_topics()"),
        ("Producer(servers)", "client.send(topic, b'x')"),
        ("Consumer(topic, bootstrap_servers=servers)", "next(iter(client))"),
    ],
    ids=["admin", "producer", "consumer"],
)
def test_without_a_handler_it_ends_the_process(fragile: Cluster, name: str, client: str, call: str) -> None:
    script = UNCAUGHT.format(client=client, call=call)
    with start("-W", "error", "-c", script, fragile.bootstrap_servers, name) as process:
        assert process.stdout is not None
        waits_by_itself = "Consumer" in client
        with suspended(*([] if waits_by_itself else [fragile.coordinator_pid])):
            assert process.stdout.readline() == "begins\n"
            wait_until_it_waits(process)
            _, errors = interrupt(process)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert errors.count("Traceback") == 1
    assert "Exception ignored" not in errors


@pytest.mark.parametrize(
    "command",
    [
        "topic create new",
        "topic list",
        "topic describe t",
        "topic delete t --execute",
        "cluster status",
        "consume t",
    ],
)
def test_commands(fragile: Cluster, command: str) -> None:
    with suspended(fragile.coordinator_pid):
        words = command.split()
        with start("-P", "-m", "tailrace", *words, "-b", fragile.bootstrap_servers) as process:
            wait_until_it_waits(process)
            assert interrupt(process) == ("", "")
    assert process.returncode == 130


def test_a_second_ctrl_c_ends_a_command_that_still_delivers(fragile: Cluster, name: str) -> None:
    with start("-P", "-m", "tailrace", "produce", name, "-b", fragile.bootstrap_servers) as process:
        assert process.stdin is not None
        wait_until_it_waits(process)
        with suspended(fragile.pid(1)):
            process.stdin.write("a line\n")
            process.stdin.flush()
            wait_until_it_waits(process)
            process.send_signal(signal.SIGINT)
            wait_until_it_waits(process)
            assert interrupt(process) == ("", "")
    assert process.returncode == 130


def test_what_does_not_wait(fragile: Cluster, name: str, tmp_path: Path) -> None:
    """So that there is nothing to interrupt."""
    where = fragile.bootstrap_servers
    place = TopicPartition(name, 0)
    producer, admin = Producer(where), Admin(where)
    producer.send(name, b"x", partition=0).result(PATIENCE_S)
    consumer = Consumer(name, bootstrap_servers=where, auto_offset_reset="earliest", offset_store=tmp_path)
    assert consumer.poll(PATIENCE_S * 1_000)
    with suspended(fragile.pid(1), fragile.coordinator_pid):
        started = time.monotonic()
        consumer.commit()
        consumer.commit({place: 0})
        assert (consumer.position(place), consumer.committed(place)) == (1, 0)
        consumer.seek(place, 0)
        consumer.pause(place)
        consumer.resume(place)
        assert consumer.metrics()["records_handed_over"] == 1
        assert consumer.poll(0) == {}
        consumer.unsubscribe()
        consumer.close()
        assert producer.partitions_for(name) == {0, 1}
        assert producer.metrics()["records_acked"] == 1
        producer.close()
        admin.close()
        assert time.monotonic() - started < BUSY_S
