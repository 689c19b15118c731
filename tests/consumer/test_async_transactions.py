"""`AsyncConsumer.local_transaction`: keys and position together, and a loop that goes on meanwhile."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tailrace import AsyncConsumer, AsyncRebalanceListener, LocalTransaction, TopicPartition, read_local_state
from tailrace.consumer.local.partition import PartitionStore
from tailrace.consumer.local_transactions import Block
from tailrace.protocol.errors import ConcurrentUseError, InvalidArgumentError, StorageFullError

from ..patience import PATIENCE_S
from .conftest import Feeder

Body = Callable[[AsyncConsumer, TopicPartition], Awaitable[None]]


def run(feeder: Feeder, folder: Path, body: Body, values: int = 3) -> dict[bytes, bytes]:
    """With a consumer of a topic of so many numbers; what is in the store afterwards."""
    topic = feeder.topic()
    feeder.send_numbers(topic, range(values))
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "enable_auto_commit": False}

    async def main() -> None:
        servers = feeder.cluster.bootstrap_servers
        async with AsyncConsumer(
            topic, bootstrap_servers=servers, offset_store=folder, **options
        ) as consumer:
            async with asyncio.timeout(PATIENCE_S):
                await body(consumer, TopicPartition(topic, 0))

    asyncio.run(main())
    return {entry.key: entry.value for entry in read_local_state(folder)}


async def put(consumer: AsyncConsumer, *keys: bytes, raises: BaseException | None = None) -> None:
    async with consumer.local_transaction() as transaction:
        for key in keys:
            transaction.put(key, b"v")
        if raises is not None:
            raise raises


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """(storing has begun, let it go on): it waits in its thread, and would for ever in the loop's."""
    begun, go_on = threading.Event(), threading.Event()
    make = Block.make

    def slowly(block: Block, keys: Any) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        make(block, keys)

    monkeypatch.setattr(Block, "make", slowly)
    yield begun, go_on
    go_on.set()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_keys_and_position_are_stored_together(feeder: Feeder, tmp_path: Path) -> None:
    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        async for record in consumer:
            async with consumer.local_transaction() as transaction:
                transaction.put(record.value, b"seen")
                await asyncio.sleep(0)
            assert await consumer.committed(place) == record.offset + 1
            if record.offset == 1:
                break
        assert await consumer.position(place) == 2
        with pytest.raises(InvalidArgumentError, match="is over"):
            transaction.get(b"0")

    assert run(feeder, tmp_path, body) == {b"0": b"seen", b"1": b"seen"}


@pytest.mark.parametrize("error", [ValueError("the application's"), asyncio.CancelledError()])
def test_what_is_raised_takes_everything_back(feeder: Feeder, tmp_path: Path, error: BaseException) -> None:
    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        assert (await consumer.getone()).value == b"0"
        with pytest.raises(type(error)):
            await put(consumer, b"k", raises=error)
        assert await consumer.committed(place) is None
        assert (await consumer.getone()).value == b"0", "it is read again"
        await put(consumer, b"again")

    assert run(feeder, tmp_path, body) == {b"again": b"v"}


def test_the_loop_goes_on_while_it_is_stored(
    feeder: Feeder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        await consumer.getone()
        with held_up(monkeypatch) as (begun, go_on):
            storing = asyncio.create_task(put(consumer, b"k"))
            await until(begun.is_set)
            assert not storing.done()
            go_on.set()
            await storing
        assert await consumer.committed(place) == 1

    assert run(feeder, tmp_path, body) == {b"k": b"v"}


def test_cancelled_while_it_is_stored(
    feeder: Feeder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored nevertheless, and what comes next waits for that."""

    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        await consumer.getone()
        with held_up(monkeypatch) as (begun, go_on):
            storing = asyncio.create_task(put(consumer, b"k"))
            await until(begun.is_set)
            storing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await storing
            next_one = asyncio.create_task(consumer.getone())
            await asyncio.sleep(0)
            go_on.set()
            assert (await next_one).value == b"1"
        assert await consumer.committed(place) == 1

    assert run(feeder, tmp_path, body) == {b"k": b"v"}


def test_cancelled_twice_before_it_is_stored(feeder: Feeder, tmp_path: Path) -> None:
    """Waiting for its turn behind another call, so nothing is stored, and taking back waits for it, too."""

    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        await consumer.getone()
        transaction = consumer.local_transaction()
        keys = await transaction.__aenter__()
        keys.put(b"k", b"v")
        await consumer._turns.lock.acquire()
        leaving = asyncio.create_task(transaction.__aexit__(None, None, None))  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.sleep(0)
            leaving.cancel()
        await asyncio.sleep(0)
        assert not leaving.done()
        consumer._turns.lock.release()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert (await consumer.getone()).value == b"0"

    assert run(feeder, tmp_path, body) == {}


def test_what_is_refused_within(feeder: Feeder, tmp_path: Path) -> None:
    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        with pytest.raises(InvalidArgumentError, match="no record is in hand"):
            await put(consumer, b"k")
        reading = asyncio.create_task(consumer.getone())
        await asyncio.sleep(0)
        with pytest.raises(ConcurrentUseError, match="another task reads"):
            await put(consumer, b"k")
        await reading
        async with consumer.local_transaction(place):
            for refused in (consumer.poll, consumer.commit, consumer.unsubscribe, consumer.close):
                with pytest.raises(InvalidArgumentError, match="a local transaction is open"):
                    await refused()
            with pytest.raises(InvalidArgumentError, match="a local transaction is open"):
                await put(consumer, b"k")
            assert await consumer.position(place) == 1
        assert (await consumer.getone()).value == b"1"

    assert run(feeder, tmp_path, body) == {}


def test_a_full_store_takes_everything_back(
    feeder: Feeder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        await consumer.getone()
        with monkeypatch.context() as patched:

            def full(self: PartitionStore, offset: object) -> None:
                raise StorageFullError("no space")

            patched.setattr(PartitionStore, "transaction", full)
            with pytest.raises(StorageFullError):
                await put(consumer, b"k")
        assert (await consumer.getone()).value == b"0"
        await put(consumer, b"again")

    assert run(feeder, tmp_path, body) == {b"again": b"v"}


def test_changes_are_seen_before_they_are_stored(feeder: Feeder, tmp_path: Path) -> None:
    """Random changes in several transactions, against a dict."""
    random = Random(7)
    model: dict[bytes, bytes] = {}

    def change(transaction: LocalTransaction) -> None:
        key = bytes(random.choices(b"ab", k=random.randint(1, 3)))
        if random.random() < 0.4:
            assert transaction.delete(key) == (model.pop(key, None) is not None)
        else:
            model[key] = b"%d" % random.randrange(100)
            transaction.put(key, model[key])
        assert transaction.get(key, b"none") == model.get(key, b"none")
        prefix = bytes(random.choices(b"ab", k=random.randint(0, 2)))
        expected = sorted(item for item in model.items() if item[0].startswith(prefix))
        assert list(transaction.items(prefix)) == expected

    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        for _ in range(10):
            async with consumer.local_transaction(place) as transaction:
                for _ in range(20):
                    change(transaction)

    assert run(feeder, tmp_path, body) == model


def test_keys_are_there_for_the_next_holder(feeder: Feeder, tmp_path: Path) -> None:
    """Who opens the store anew, reads first, and changes what was there."""

    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        async with consumer.local_transaction(place) as transaction:
            assert transaction.get(b"k") is None
            transaction.put(b"k", b"1")
        await consumer.unsubscribe()
        await consumer.assign([place])
        async with consumer.local_transaction(place) as transaction:
            assert transaction.get(b"k") == b"1"
            assert list(transaction.items()) == [(b"k", b"1")]
            transaction.put(b"k", b"2")

    assert run(feeder, tmp_path, body) == {b"k": b"2"}


def test_within_a_listener(feeder: Feeder, tmp_path: Path) -> None:
    """A member that gives a partition up may store what it has of it first."""

    async def body(consumer: AsyncConsumer, place: TopicPartition) -> None:
        class Listener(AsyncRebalanceListener):
            async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
                async with member.local_transaction(place) as transaction:
                    transaction.put(b"revoked", b"%d" % len(partitions))

        await consumer.unsubscribe()
        servers = feeder.cluster.bootstrap_servers
        async with AsyncConsumer(
            bootstrap_servers=servers,
            group_id=f"listening-{place.topic}",
            offset_store=tmp_path,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ) as member:
            await member.subscribe(place.topic, listener=Listener())
            await member.getone()
            await member.unsubscribe()

    assert run(feeder, tmp_path, body) == {b"revoked": b"1"}
