"""Pools of real processes: every record handled, whatever raises, crashes, hangs or is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Producer, TopicPartition, read_local_state
from tailrace.protocol.errors import (
    ClosedError,
    ConnectionFailedError,
    InvalidArgumentError,
    UnknownTopicError,
    WorkerFailedError,
)
from tailrace.protocol.record import Record
from tailrace.testing import Cluster
from tailrace.workers import Pool

MakeTopic = Callable[..., str]
Numbers = Callable[[str, int], None]
Stored = Callable[[str], list[Record[Any, Any]]]
WITHIN_S = 60.0
_groups = count(1)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WITHIN_S:g} s"
        time.sleep(0.002)


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[Callable[..., Pool]]:
    """Makes pools that end by themselves; started ones are stopped."""
    made: list[Pool] = []

    def make(handler: Callable[..., Any], topic: str, **options: Any) -> Pool:
        settings = {"stop_at_end": True, "retry_backoff_ms": 1, "commit_interval_ms": 100, "processes": 2}
        settings |= {"group_id": f"pool-{next(_groups)}", "bootstrap_servers": cluster.bootstrap_servers}
        made.append(Pool(handler, topic, **{**settings, **options}))
        return made[-1]

    yield make
    for one in made:
        try:
            one.stop(0.0)
        except (ClosedError, WorkerFailedError):
            continue


def committed(admin: Admin, pool: Pool) -> dict[TopicPartition, int]:
    return {place: found.offset for place, found in admin.list_group_offsets(pool._spec.group_id).items()}


def test_results_of_closures(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored
) -> None:
    source, output = topic(4), topic(3)
    numbers(source, 2_000)
    suffix = b"!"

    def shout(record: Record[Any, Any]) -> Any:
        if record.value.endswith(b"0"):
            return None
        if record.value.endswith(b"1"):
            return [(b"one", record.value + suffix), record.value]
        return record.value + suffix

    reports: list[dict[str, Any]] = []
    made = pool(shout, source, output_topic=output)
    made.run(reports.append, 0.05)
    values = Counter(record.value for record in stored(output))
    texts = [b"%d" % number for number in range(2_000)]
    expected = Counter(text + suffix for text in texts if not text.endswith(b"0"))
    expected.update(text for text in texts if text.endswith(b"1"))
    assert values == expected
    keys = {record.value: record.key for record in stored(output)}
    assert (keys[b"1!"], keys[b"1"], keys[b"2!"]) == (b"one", b"1", b"2")
    assert reports
    assert made.metrics()["records"] == 2_000


def test_handlers_of_a_script(
    cluster: Cluster, topic: MakeTopic, numbers: Numbers, stored: Stored, tmp_path: Path
) -> None:
    source, output = topic(2), topic()
    numbers(source, 100)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from dataclasses import dataclass
            from tailrace.workers import Pool

            @dataclass
            class Doubled:
                number: int

            def double(number):
                return Doubled(2 * number)

            def handle(record):
                return str(double(int(record.value)).number).encode()

            if __name__ == "__main__":
                Pool(
                    handle, "{source}", "script", bootstrap_servers="{cluster.bootstrap_servers}",
                    processes=2, output_topic="{output}", stop_at_end=True,
                ).run()
            """
        )
    )
    subprocess.run([sys.executable, "-W", "error", str(script)], check=True, timeout=WITHIN_S)
    assert sorted(int(record.value) for record in stored(output)) == list(range(0, 200, 2))


def test_retries_and_dead_letters(
    pool: Callable[..., Pool],
    topic: MakeTopic,
    numbers: Numbers,
    stored: Stored,
    admin: Admin,
    tmp_path: Path,
) -> None:
    source, output, dead = topic(2), topic(), topic()
    numbers(source, 100)

    def fail(record: Record[Any, Any]) -> bytes:
        attempt = (
            tmp_path / f"{record.value.decode()}-{len(list(tmp_path.glob(record.value.decode() + '-*')))}"
        )
        attempt.touch()
        if record.value in (b"7", b"42") or (record.value == b"50" and not attempt.name.endswith("-1")):
            raise ZeroDivisionError("no luck with this one")
        return bytes(record.value)

    made = pool(fail, source, output_topic=output, dead_letter_topic=dead, retries=2)
    made.run()
    assert sorted(int(record.value) for record in stored(output)) == sorted({*range(100)} - {7, 42})
    assert {path.name for path in tmp_path.glob("7-*")} == {"7-0", "7-1", "7-2"}
    letters = {record.value: record for record in stored(dead)}
    assert letters.keys() == {b"7", b"42"}
    headers = dict(letters[b"7"].headers)
    assert headers["tailrace.error"].startswith(b"ZeroDivisionError: no luck with this one (")
    assert headers["tailrace.error"].endswith(b" fail)")
    assert (headers["tailrace.topic"], letters[b"7"].key) == (source.encode(), b"7")
    metrics = made.metrics()
    assert [metrics[name] for name in ("records", "errors", "retries", "dead_letters")] == [100, 7, 5, 2]
    assert sum(committed(admin, made).values()) == 100


def test_without_dead_letters_the_pool_stops_before_the_record(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, admin: Admin
) -> None:
    source = topic()
    numbers(source, 100)

    def fail(record: Record[Any, Any]) -> None:
        if record.value == b"50":
            raise KeyError("the cause")

    made = pool(fail, source, retries=1)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(WorkerFailedError, match=rf"{source}-0 offset 50: KeyError: 'the cause'"):
        made.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert committed(admin, made) == {TopicPartition(source, 0): 50}


@pytest.mark.parametrize("batches", [False, True])
def test_what_does_not_deserialize_is_a_dead_letter_at_once(
    pool: Callable[..., Pool], topic: MakeTopic, cluster: Cluster, stored: Stored, batches: bool
) -> None:
    source, output, dead = topic(), topic(), topic()
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send_many(source, [b"1", b"{", b"3", b"\xff"])
        producer.flush()
        producer.send_many(source, [b"["])

    def handle(given: Any) -> Any:
        return [str(value).encode() for value in given.values] if batches else str(given.value).encode()

    made = pool(
        handle,
        source,
        value_deserializer="json",
        output_topic=output,
        dead_letter_topic=dead,
        batches=batches,
    )
    made.run()
    assert [record.value for record in stored(output)] == [b"1", b"3"]
    assert [record.value for record in stored(dead)] == [b"{", b"\xff", b"["]
    assert made.metrics()["dead_letters"] == 3
    assert made.metrics()["records"] == 5


def test_a_batch_that_fails_buries_each_record_once(
    pool: Callable[..., Pool], topic: MakeTopic, cluster: Cluster, stored: Stored
) -> None:
    source, dead = topic(), topic()
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send_many(source, [b"1", b"{", b"3"])

    def fail(_: Any) -> None:
        raise KeyError

    options = {"value_deserializer": "json", "batches": True, "dead_letter_topic": dead, "retries": 1}
    made = pool(fail, source, **options)
    made.run()
    assert sorted(record.value for record in stored(dead)) == [b"1", b"3", b"{"]
    assert made.metrics()["dead_letters"] == made.metrics()["records"] == 3


def test_results_keep_the_key_as_it_is_stored(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored
) -> None:
    source, output = topic(), topic()
    numbers(source, 10)
    options = {"key_deserializer": "json", "value_deserializer": "json", "output_serializer": "json"}
    pool(
        lambda record: {"number": record.value, "key": record.key}, source, output_topic=output, **options
    ).run()
    assert [(record.key, record.value) for record in stored(output)] == [
        (b"%d" % number, b'{"number":%d,"key":%d}' % (number, number)) for number in range(10)
    ]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_is_missing(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored
) -> None:
    source, output = topic(4), topic()
    numbers(source, 2_000)

    def slowly(record: Record[Any, Any]) -> bytes:
        time.sleep(0.003)  # so that it is not done before the second kill
        return bytes(record.value)

    made = pool(slowly, source, output_topic=output)
    made.start()
    for at_least in (200, 600):
        wait_until(lambda: made.metrics()["records"] >= at_least, "it goes on")  # noqa: B023
        pid = next(worker["pid"] for worker in made.metrics()["workers"] if worker["state"] == "running")
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: pid not in [worker["pid"] for worker in made.metrics()["workers"]],  # noqa: B023
            "the pool notices",
        )
    assert made.wait(WITHIN_S)
    assert {int(record.value) for record in stored(output)} == set(range(2_000))
    assert made.metrics()["restarts"] == 2


def test_a_worker_that_is_killed_before_it_is_ready(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers
) -> None:
    source = topic()
    numbers(source, 3)
    made = pool(repr, source, processes=1)
    made.start()
    wait_until(lambda: made.metrics()["workers"][0]["pid"], "it is started")
    os.kill(made.metrics()["workers"][0]["pid"], signal.SIGKILL)
    assert made.wait(WITHIN_S)
    assert (made.metrics()["records"], made.metrics()["restarts"]) == (3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("state", [False, True])
def test_a_record_that_kills_its_worker_three_times(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored, tmp_path: Path, state: bool
) -> None:
    source, output, dead = topic(2), topic(), topic()
    numbers(source, 100)

    def die(record: Record[Any, Any], *_: Any) -> bytes:
        if record.value == b"42":
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(record.value)

    options = {"local_state": tmp_path / "state"} if state else {}
    made = pool(die, source, output_topic=output, dead_letter_topic=dead, **options)
    made.run()
    assert {int(record.value) for record in stored(output)} == {*range(100)} - {42}
    (letter,) = stored(dead)
    assert letter.value == b"42"
    assert dict(letter.headers)["tailrace.error"] == b"3 workers died while they had it in hand"
    assert made.metrics()["restarts"] in (2, 3), "the last one may come after the end"


@pytest.mark.slow
def test_drain(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored, admin: Admin
) -> None:
    """What is done is committed, so another pool goes on exactly there."""
    source, output = topic(4), topic()
    numbers(source, 20_000)  # more than is done before the pool hears that it is to stop

    def slowly(record: Record[Any, Any]) -> bytes:
        time.sleep(0.002)
        return bytes(record.value)

    options = {"output_topic": output, "group_id": f"drained-{source}"}
    first = pool(slowly, source, stop_at_end=False, commit_interval_ms=600_000, **options)
    with first:
        wait_until(lambda: first.metrics()["records"] > 50, "it goes on")
    done = len(stored(output))
    assert 50 < done < 20_000
    assert sum(committed(admin, first).values()) == done
    second = pool(lambda record: bytes(record.value), source, **options)
    second.run()
    assert sorted(int(record.value) for record in stored(output)) == list(range(20_000))


@pytest.fixture
def hanging(pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, tmp_path: Path) -> Pool:
    """Its one worker has a record in hand, until a file `dies` is there: then it dies."""
    source = topic()
    numbers(source, 1)

    def hang(_: Record[Any, Any]) -> None:
        (tmp_path / "hangs").touch()
        while not (tmp_path / "dies").exists():
            time.sleep(0.01)
        os._exit(3)

    made = pool(hang, source, stop_at_end=False, processes=1)
    made.start()
    wait_until((tmp_path / "hangs").exists, "the handler hangs")
    return made


def test_who_does_not_drain_is_killed(hanging: Pool) -> None:
    pid = hanging.metrics()["workers"][0]["pid"]
    assert not hanging.wait(0.0)
    with pytest.raises(InvalidArgumentError):
        hanging.stop(timeout=-1)
    hanging.stop(timeout=0.2)
    assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_does_not_end_cleanly_is_told_of(hanging: Pool, tmp_path: Path) -> None:
    keeper = hanging._kept()
    keeper.stop(WITHIN_S)
    wait_until(lambda: keeper._stop_by is not None, "the pool ends")
    (tmp_path / "dies").touch()
    with pytest.raises(WorkerFailedError, match=r"worker 0 did not end cleanly: .*3.*; what it has not"):
        hanging.stop()


ORPHANED = """
import sys, time
from tailrace.workers import Pool
with Pool(lambda record: None, sys.argv[2], "orphaned", processes=2, bootstrap_servers=sys.argv[1]) as pool:
    while any(worker["state"] != "running" for worker in pool.metrics()["workers"]):
        time.sleep(0.01)
    print(*(worker["pid"] for worker in pool.metrics()["workers"]), flush=True)
    pool.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 1)])
def test_workers_end_with_their_pool(cluster: Cluster, topic: MakeTopic, number: int, code: int) -> None:
    command = [sys.executable, "-c", ORPHANED, cluster.bootstrap_servers, topic()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        assert len(pids) == 2
        process.send_signal(number)
        assert process.wait(WITHIN_S) in (code, -number)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers end")


def count_words(record: Record[Any, Any], state: Any) -> None:
    key = record.value[-1:]
    if record.value == b"13" and state.get(b"failed-once") is None and not getattr(count_words, "failed", 0):
        count_words.failed = 1  # type: ignore[attr-defined]
        state.put(b"never", b"kept")
        raise RuntimeError("the first time")
    state.put(key, str(int(state.get(key) or 0) + 1).encode())


@pytest.mark.parametrize("batches", [False, True])
def test_exactly_once_into_local_state(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, tmp_path: Path, batches: bool
) -> None:
    source = topic(4)
    numbers(source, 3_000)

    def of_batch(batch: Any, state: Any) -> None:
        for record in batch.records():
            count_words(record, state)

    made = pool(
        of_batch if batches else count_words,
        source,
        local_state=tmp_path / "state",
        max_poll_records=50,
        batches=batches,
    )
    made.start()
    for at_least in (100, 1_000):
        wait_until(lambda: made.metrics()["records"] >= at_least or made.wait(0), "it goes on")  # noqa: B023
        pids = [worker["pid"] for worker in made.metrics()["workers"] if worker["pid"] is not None]
        if pids and not made.wait(0):
            os.kill(pids[0], signal.SIGKILL)
    assert made.wait(WITHIN_S)
    made.stop()
    counts: Counter[bytes] = Counter()
    for entry in read_local_state(tmp_path / "state"):
        counts[entry.key] += int(entry.value)
    assert counts == {str(digit).encode(): 300 for digit in range(10)}


def test_dead_letters_beside_local_state(
    pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers, stored: Stored, tmp_path: Path
) -> None:
    source, dead = topic(2), topic()
    numbers(source, 100)

    def handle(record: Record[Any, Any], state: Any) -> None:
        state.put(record.value, b"")
        if int(record.value) % 40 == 7:
            raise KeyError(record.value)

    made = pool(handle, source, local_state=tmp_path / "state", dead_letter_topic=dead, retries=1)
    made.run()
    assert sorted(int(record.value) for record in stored(dead)) == [7, 47, 87]
    kept = sorted(int(entry.key) for entry in read_local_state(tmp_path / "state"))
    assert kept == sorted({*range(100)} - {7, 47, 87})
    metrics = made.metrics()
    assert [metrics[name] for name in ("records", "errors", "retries", "dead_letters")] == [100, 6, 3, 3]


@pytest.mark.slow
def test_nothing_to_do(pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers) -> None:
    source = topic(3)
    pool(print, source).run()
    numbers(source, 10)
    group = {"group_id": f"twice-{source}"}
    pool(lambda _: None, source, **group).run()
    again = pool(lambda _: None, source, **group)
    again.run()
    assert again.metrics()["records"] == 0


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "handler": ({"handler": "module:function"}, "cannot be called back"),
    "lock": ({"handler": threading.Lock().acquire}, "cannot be sent to a worker"),
    "coroutine": ({"handler": asyncio.sleep}, "does nothing before it is awaited"),
    "too few": ({"handler": lambda: None}, r"is called with \(record\), since there is no local_state"),
    "too many": ({"handler": lambda batch, state: None, "batches": True}, r"called with \(batch\)"),
    "no state": (
        {"handler": lambda record: None, "local_state": "s"},
        r"called with \(record, transaction\)",
    ),
    "keyword": ({"handler": lambda record, *, option: None}, "'option'"),
    "topics": ({"topics": []}, "a pool needs a topic"),
    "letters": ({"dead_letter_topic": "t"}, "letters would come back"),
    "processes": ({"processes": 0}, "processes"),
    "unknown": ({"proceses": 3}, "did you mean 'processes'"),
    "consumer's": ({"max_poll_record": 3}, "did you mean 'max_poll_records'"),
    "ours": ({"enable_auto_commit": True}, "set by the pool"),
    "value": ({"session_timeout_ms": "x"}, "session_timeout_ms"),
    "group": ({"group_id": "a b"}, "group_id"),
    "serializer": ({"value_deserializer": "jsn"}, "did you mean 'json'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options(name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(InvalidArgumentError, match=message):
        Pool(**{"handler": print, "topics": "t", "group_id": "g", **options})


@pytest.mark.parametrize("handler", [print, max, partial(print, end=""), lambda *anything: None, [].append])
def test_what_may_be_called(handler: Callable[..., Any]) -> None:
    assert "1 worker: " in repr(Pool(handler, "t", "g"))


def test_what_is_not_there(pool: Callable[..., Pool], topic: MakeTopic, numbers: Numbers) -> None:
    source = topic()
    with pytest.raises(UnknownTopicError):
        pool(print, "missing").run()
    with pytest.raises(UnknownTopicError):
        pool(print, source, dead_letter_topic="missing").run()
    with pytest.raises(ConnectionFailedError):
        pool(print, source, bootstrap_servers="127.0.0.1:1", request_timeout_ms=100).run()
    with pytest.raises(ClosedError, match="not started"):
        pool(print, source).metrics()
    numbers(source, 1)
    used = pool(repr, source)
    assert repr(used) == f"<Pool {used._spec.group_id!r} of 2 workers: repr on {source}: not started>"
    used.run()
    assert repr(used).endswith(f"{source}: ended>")
    with pytest.raises(ClosedError, match="runs once"):
        used.start()
