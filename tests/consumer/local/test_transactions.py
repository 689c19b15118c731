"""Local transactions: keys of the application and the position change together, or not at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tailrace import LocalEntry, read_local_state
from tailrace.consumer import Consumer
from tailrace.consumer.local import partition as partition_module
from tailrace.protocol.errors import (
    ConcurrentUseError,
    DataFolderError,
    InvalidArgumentError,
    StorageFullError,
    TailraceError,
)
from tailrace.protocol.limits import LOCAL_STATE_KEY_BYTES_MAX, MIB
from tailrace.protocol.record import TopicPartition

from ..conftest import Feeder


@pytest.fixture
def topic(feeder: Feeder) -> str:
    return feeder.topic(partitions=2)


def reader(feeder: Feeder, topic: str, folder: Path, **options: Any) -> Consumer:
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "consumer_timeout_ms": 5_000}
    return Consumer(
        topic,
        bootstrap_servers=feeder.cluster.bootstrap_servers,
        offset_store=folder,
        **{**settings, **options},
    )


def interrupted(consumer: Consumer, name: TopicPartition | None, error: Exception) -> None:
    """A transaction that changes something and is taken back."""
    with consumer.local_transaction(name) as transaction:
        transaction.put(b"interrupted", b"1")
        raise error


def state_of(folder: Path) -> dict[bytes, bytes]:
    return {entry.key: entry.value for entry in read_local_state(folder)}


def test_keys_and_position_are_stored_together(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a", b"b", b"c")
    place = TopicPartition(topic, 0)
    with reader(feeder, topic, tmp_path) as consumer:
        for record in consumer:
            with consumer.local_transaction() as transaction:
                transaction.put(b"last", record.value)
                assert transaction.get(b"last") == record.value
            if record.value == b"b":
                break
        assert consumer.committed(place) == 2
    assert list(read_local_state(tmp_path)) == [LocalEntry(place, b"last", b"b")]
    with reader(feeder, topic, tmp_path) as consumer:
        assert next(iter(consumer)).value == b"c"


def test_an_exception_takes_back_keys_and_position(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a", b"b", b"c")
    seen = []
    with reader(feeder, topic, tmp_path) as consumer:
        for record in consumer:
            seen.append(record.value)
            try:
                with consumer.local_transaction() as transaction:
                    transaction.put(record.value, b"done")
                    if seen.count(b"b") == 1 and record.value == b"b":
                        raise RuntimeError("the application's")
            except RuntimeError:
                continue
            if record.value == b"c":
                break
    assert seen == [b"a", b"b", b"b", b"c"]
    assert state_of(tmp_path) == {b"a": b"done", b"b": b"done", b"c": b"done"}


def test_a_poll_of_several_partitions(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a", b"b", partition=0)
    feeder.send(topic, b"c", b"d", partition=1)
    with reader(feeder, topic, tmp_path) as consumer:
        polled: dict[TopicPartition, list[Any]] = {}
        while len(polled) < 2:
            consumer.seek_to_beginning()
            polled = consumer.poll(timeout_ms=1_000)
        with (
            pytest.raises(InvalidArgumentError, match="records of 2 partitions are in hand"),
            consumer.local_transaction(),
        ):
            pass
        first, second = polled
        with consumer.local_transaction(first) as transaction:
            transaction.put(b"first", b"1")
        with pytest.raises(ZeroDivisionError):
            interrupted(consumer, second, ZeroDivisionError())
        assert consumer.committed(first) == 2
        assert consumer.committed(second) is None
        assert {name: [r.offset for r in records] for name, records in consumer.poll(5_000).items()} == {
            second: [0, 1]
        }
    assert state_of(tmp_path) == {b"first": b"1"}


def test_batches_and_a_second_transaction(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a", b"b")
    feeder.send(topic, b"c", b"d")
    with reader(feeder, topic, tmp_path) as consumer:
        batches = consumer.batches(timeout_ms=5_000)
        assert list(next(batches).values) == [b"a", b"b"]
        with consumer.local_transaction() as transaction:
            transaction.put(b"n", b"1")
        with pytest.raises(KeyError):
            interrupted(consumer, None, KeyError())
        # What the first has stored is not taken back by the second.
        assert list(next(batches).values) == [b"c", b"d"]
    assert state_of(tmp_path) == {b"n": b"1"}


def test_keys_go_with_the_partition(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a")
    with (
        reader(feeder, topic, tmp_path) as consumer,
        consumer.local_transaction(TopicPartition(topic, 0)) as t,
    ):
        t.put(b"k", b"v")
    with reader(feeder, topic, tmp_path) as consumer:
        with consumer.local_transaction(TopicPartition(topic, 0)) as transaction:
            assert transaction.get(b"k") == b"v"
        with consumer.local_transaction(TopicPartition(topic, 1)) as transaction:
            assert transaction.get(b"k") is None


def test_items_put_get_delete(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    random = Random(7)
    model: dict[bytes, bytes] = {}
    with reader(feeder, topic, tmp_path) as consumer:
        for _ in range(20):
            with consumer.local_transaction(TopicPartition(topic, 0)) as transaction:
                for _ in range(20):
                    key = random.choice((b"a", b"b")) + str(random.randrange(20)).encode()
                    assert transaction.get(key) == model.get(key)
                    if random.random() < 0.6:
                        model[key] = random.randbytes(random.randrange(2_000))
                        transaction.put(key, model[key])
                    else:
                        assert transaction.delete(key) == (model.pop(key, None) is not None)
                assert list(transaction.items()) == sorted(model.items())
                wanted = [(key, value) for key, value in sorted(model.items()) if key.startswith(b"b1")]
                assert list(transaction.items(b"b1")) == wanted
                assert transaction.get(b"none", b"default") == b"default"
    assert state_of(tmp_path) == model


@pytest.fixture
def open_transaction(feeder: Feeder, topic: str, tmp_path: Path) -> Iterator[tuple[Consumer, Any]]:
    feeder.send(topic, b"a")
    with reader(feeder, topic, tmp_path) as consumer:
        next(iter(consumer))
        with consumer.local_transaction() as transaction:
            yield consumer, transaction


FORBIDDEN = {
    "poll": lambda consumer, place: consumer.poll(),
    "iterate": lambda consumer, place: next(iter(consumer)),
    "seek": lambda consumer, place: consumer.seek(place, 0),
    "pause": lambda consumer, place: consumer.pause(place),
    "assign": lambda consumer, place: consumer.assign([place]),
    "subscribe": lambda consumer, place: consumer.subscribe([place.topic]),
    "commit": lambda consumer, place: consumer.commit(),
    "commit offsets": lambda consumer, place: consumer.commit({place: 1}),
    "commit_async": lambda consumer, place: consumer.commit_async(),
    "close": lambda consumer, place: consumer.close(),
    "nested": lambda consumer, place: consumer.local_transaction(place).__enter__(),
}


@pytest.mark.parametrize("call", FORBIDDEN)
def test_what_moves_positions_is_refused_within(
    open_transaction: tuple[Consumer, Any], topic: str, call: str
) -> None:
    consumer, transaction = open_transaction
    with pytest.raises(InvalidArgumentError, match="a local transaction is open"):
        FORBIDDEN[call](consumer, TopicPartition(topic, 0))
    transaction.put(b"still", b"open")
    assert consumer.position(TopicPartition(topic, 0)) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"", b"v"), (b"k" * (LOCAL_STATE_KEY_BYTES_MAX + 1), b"v"), ("k", b"v"), (b"k", "v"), (b"k", None)],
)
def test_keys_and_values_that_do_not_fit(
    open_transaction: tuple[Consumer, Any], key: Any, value: Any
) -> None:
    _, transaction = open_transaction
    with pytest.raises(InvalidArgumentError):
        transaction.put(key, value)
    transaction.put(b"k" * LOCAL_STATE_KEY_BYTES_MAX, b"")


def test_a_transaction_is_over_at_the_end_of_its_block(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    with reader(feeder, topic, tmp_path) as consumer:
        with consumer.local_transaction(TopicPartition(topic, 0)) as transaction:
            transaction.put(b"a", b"1")
            transaction.put(b"b", b"1")
            items = transaction.items()
            next(items)
        with pytest.raises(InvalidArgumentError, match="is over"):
            transaction.get(b"a")
        with pytest.raises(TailraceError):
            next(items)


def test_without_a_folder_and_with_nothing_in_hand(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    with (
        Consumer(topic, bootstrap_servers=feeder.cluster.bootstrap_servers) as consumer,
        pytest.raises(InvalidArgumentError, match="offset_store"),
        consumer.local_transaction(),
    ):
        pass
    with reader(feeder, topic, tmp_path) as consumer:
        with pytest.raises(InvalidArgumentError, match="no record is in hand"), consumer.local_transaction():
            pass
        with pytest.raises(InvalidArgumentError, match="not assigned"):
            consumer.local_transaction(TopicPartition("other", 0)).__enter__()
        with pytest.raises(InvalidArgumentError, match="is no partition"):
            consumer.local_transaction("orders")  # type: ignore[arg-type]


def fill(consumer: Consumer) -> None:
    with consumer.local_transaction() as transaction:
        for number in range(1_000):
            transaction.put(str(number).encode(), bytes(100_000))


def test_a_full_store_takes_everything_back(
    feeder: Feeder, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_module, "OFFSET_STORE_MAP_BYTES", MIB)
    feeder.send(topic, b"a")
    with reader(feeder, topic, tmp_path) as consumer:
        records = iter(consumer)
        next(records)
        with pytest.raises(StorageFullError, match="no space left"):
            fill(consumer)
        assert next(records).offset == 0
        with consumer.local_transaction() as transaction:
            assert list(transaction.items()) == []
            transaction.put(b"small", b"1")
    assert state_of(tmp_path) == {b"small": b"1"}


def test_another_thread_is_refused(open_transaction: tuple[Consumer, Any]) -> None:
    consumer, _ = open_transaction
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConcurrentUseError):
        pool.submit(consumer.poll).result()


def read_on(consumer: Consumer, records: Iterator[Any]) -> None:
    with consumer.local_transaction() as transaction:
        transaction.put(b"k", b"v")
        next(records)
        raise StopIteration


def test_auto_commit_waits_for_the_end_of_the_block(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    feeder.send(topic, b"a", b"b", b"c", b"d")
    place = TopicPartition(topic, 0)
    with reader(feeder, topic, tmp_path, enable_auto_commit=True, auto_commit_interval_ms=0) as consumer:
        records = iter(consumer)
        next(records)
        next(records)
        with pytest.raises(StopIteration):
            read_on(consumer, records)
        assert consumer.committed(place) == 1
        assert next(records).offset == 1  # the first that was in hand when the block began
        with consumer.local_transaction():
            next(records)
        assert consumer.committed(place) == 3
        assert next(records).offset == 3


def test_state_that_is_open_here_or_is_none(feeder: Feeder, topic: str, tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="there is none"):
        read_local_state(tmp_path / "missing")
    with (
        reader(feeder, topic, tmp_path) as consumer,
        consumer.local_transaction(TopicPartition(topic, 0)) as t,
    ):
        t.put(b"k", b"v")
        with pytest.raises(DataFolderError, match="open in this process"):
            list(read_local_state(tmp_path))
    with pytest.raises(InvalidArgumentError):
        read_local_state(7)  # type: ignore[arg-type]
    assert state_of(tmp_path) == {b"k": b"v"}
