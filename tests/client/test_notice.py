"""What those are told whose call waits for a cluster that is away."""

import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from tailrace.client import notice
from tailrace.client.admin import Admin
from tailrace.client.notice import Notice
from tailrace.protocol.errors import ConnectionFailedError
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S

NOBODY = "127.0.0.1:1"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "TOLD_AFTER_S", 0.0)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == notice.__name__]


@pytest.mark.usefixtures("at_once")
def test_a_wait_is_told_once_and_only_when_something_stands_in_its_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    obstacles = iter(["", "nobody is there", "nor now"])
    told = Notice("x waits for y", 30.0, lambda: next(obstacles), ", Ctrl-C ends it")
    told.look()
    assert messages(caplog) == []
    told.look()
    told.look()
    assert messages(caplog) == ["x waits for y: nobody is there; trying for 30 s, Ctrl-C ends it"]
    assert next(obstacles) == "nor now"  # not asked for again


@pytest.mark.parametrize("timeout_s", [2 * notice.TOLD_AFTER_S, 3_600.0])
def test_nothing_is_looked_for_in_the_first_second_or_in_a_short_wait(timeout_s: float) -> None:
    def fail() -> str:
        raise AssertionError

    Notice("x waits for y", timeout_s, fail).look()


@pytest.mark.usefixtures("at_once")
def test_a_handler_of_logs_that_waits_itself_is_not_told() -> None:
    told: list[str] = []

    class Shipping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            Notice("the handler waits", 30.0, lambda: "nobody is there").look()

    log, handler = logging.getLogger(notice.__name__), Shipping()
    log.addHandler(handler)
    try:
        Notice("x waits for y", 30.0, lambda: "nobody is there").look()
        Notice("x waits for z", 30.0, lambda: "nobody is there").look()
    finally:
        log.removeHandler(handler)
    assert [line.partition(":")[0] for line in told] == ["x waits for y", "x waits for z"]


def test_the_first_contact_is_told_and_its_error_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with Admin(NOBODY, request_timeout_ms=2_500) as admin, pytest.raises(ConnectionFailedError):
        admin.list_topics()
    (told,) = messages(caplog)
    assert "waits for the coordinator: 127.0.0.1:1: connection refused" in told
    assert told.endswith("; trying for 2.5 s")


PREPARED = """
    import sys
    from contextlib import suppress
    from tailrace import AsyncProducer, Consumer, Producer
    from tailrace.protocol.errors import DeliveryFailedError
    servers = sys.argv[1]

    def until_the_cluster_is_away():
        print("ready", flush=True)
        sys.stdin.readline()
"""
PRODUCER = """
    with Producer(servers, client_id="me") as producer:
        producer.send("t", b"x").result()
        until_the_cluster_is_away()
        producer.send("t", b"y")
        raise KeyboardInterrupt  # and another one is to end the wait for the record
"""
ASYNC_PRODUCER = """
    import asyncio

    async def main():
        async with AsyncProducer(servers, client_id="me") as producer:
            await producer.send_and_wait("t", b"x")
            until_the_cluster_is_away()
            await producer.send("t", b"y")

    asyncio.run(main())
"""
RECORD = """
    producer = Producer(servers, client_id="me", linger_ms=0)
    producer.send("t", b"x").result()
    until_the_cluster_is_away()
    try:
        producer.send("t", b"y").result(90)
    finally:
        with suppress(DeliveryFailedError):
            producer.close(0)
"""
MEMORY = """
    producer = Producer(servers, client_id="me", buffer_memory=100_000)
    producer.send("t", b"x").result()
    until_the_cluster_is_away()
    try:
        while True:
            producer.send("t", bytes(10_000))
    finally:
        with suppress(DeliveryFailedError):
            producer.close(0)
"""
ASYNC_RECORD = """
    import asyncio

    async def main():
        producer = AsyncProducer(servers, client_id="me")
        await producer.send_and_wait("t", b"x")
        until_the_cluster_is_away()
        try:
            await asyncio.gather(*[producer.send_and_wait("t", b"y", partition=at % 2) for at in range(10)])
        finally:
            with suppress(DeliveryFailedError):
                await producer.close(0)

    asyncio.run(main())
"""
ASYNC_MEMORY = """
    import asyncio

    async def main():
        producer = AsyncProducer(servers, client_id="me", buffer_memory=100_000)
        await producer.send_and_wait("t", b"x")
        until_the_cluster_is_away()
        try:
            await asyncio.gather(*[producer.send("t", bytes(10_000)) for _ in range(20)])
        finally:
            with suppress(DeliveryFailedError):
                await producer.close(0)

    asyncio.run(main())
"""
CONSUMER = """
    with Producer(servers) as producer:
        producer.send("t", b"x")
    options = {"auto_offset_reset": "earliest", "auto_commit_interval_ms": 3_600_000}
    with Consumer("t", bootstrap_servers=servers, group_id="g", client_id="me", **options) as consumer:
        while not consumer.poll(1_000):
            pass
        consumer.commit()
        with Producer(servers) as producer:
            producer.send("t", b"y")
        while not consumer.poll(1_000):
            pass
        until_the_cluster_is_away()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "what", "how_long"),
    [
        (PRODUCER, "1 batch to be stored", "120 s, Ctrl-C ends it"),
        (ASYNC_PRODUCER, "1 batch to be stored", "120 s, Ctrl-C ends it"),
        (CONSUMER, "the coordinator", "30 s, Ctrl-C ends it"),
        (RECORD, "a record in t-[01] to be stored", "90 s"),
        (MEMORY, "room in buffer_memory", "60 s"),
        (ASYNC_RECORD, "2 batches to be stored", "120 s"),
        (ASYNC_MEMORY, "room in buffer_memory", "60 s"),
    ],
)
def test_who_waits_for_a_cluster_that_has_died_is_told_once_and_ctrl_c_ends_it(
    script: str, what: str, how_long: str
) -> None:
    with Cluster(nodes=1) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t", partitions=2)
        code = textwrap.dedent(PREPARED) + textwrap.dedent(script)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", code, cluster.bootstrap_servers]
        with subprocess.Popen(command, text=True, **pipes) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            watchdog = threading.Timer(PATIENCE_S, process.kill)
            watchdog.start()
            assert process.stdout.readline() == "ready\n"
            cluster.kill_coordinator()  # first, so that nobody tells of the node's death
            cluster.kill(1)
            process.stdin.write("it is\n")
            process.stdin.flush()
            told = next(line for line in process.stderr if "waits for" in line)
            process.send_signal(signal.SIGINT)
            process.wait(BUSY_S)
            rest = process.stderr.read()
            watchdog.cancel()
    assert re.fullmatch(f"me waits for {what}: .*: connection refused.*; trying for {how_long}\n", told)
    assert "KeyboardInterrupt" in rest
    assert "waits for" not in rest
