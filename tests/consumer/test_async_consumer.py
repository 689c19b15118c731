"""`AsyncConsumer`: reading, settling, cancellation, groups and listeners, the loop that goes on."""

import asyncio
import logging
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tailrace import AsyncConsumer, AsyncRebalanceListener, RebalanceListener, TopicPartition
from tailrace.protocol.errors import (
    ClosedError,
    ConcurrentUseError,
    ConnectionFailedError,
    InvalidArgumentError,
    UnknownTopicError,
)
from tailrace.protocol.record import Record

from ..patience import PATIENCE_S, wait_until
from ..suspended import suspended
from .conftest import Feeder


def consumer_of(feeder: Feeder, *topics: str, **options: Any) -> AsyncConsumer:
    settings = {"bootstrap_servers": feeder.cluster.bootstrap_servers, "auto_offset_reset": "earliest"}
    return AsyncConsumer(*topics, **{**settings, **options})


async def by_loop(consumer: AsyncConsumer, count: int) -> list[int]:
    found: list[int] = []
    async for record in consumer:
        found.append(int(record.value))
        if len(found) == count:
            break
    return found


async def by_getone(consumer: AsyncConsumer, count: int) -> list[int]:
    return [int((await consumer.getone()).value) for _ in range(count)]


async def by_getmany(consumer: AsyncConsumer, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        for records in (await consumer.getmany(timeout_ms=PATIENCE_S * 1_000, max_records=3)).values():
            found += [int(record.value) for record in records]
    return found


async def by_batches(consumer: AsyncConsumer, count: int) -> list[int]:
    found: list[int] = []
    async for batch in consumer.batches(timeout_ms=PATIENCE_S * 1_000):
        found += map(int, batch.values)
        if len(found) >= count:
            break
    return found


WAYS: dict[str, Callable[[AsyncConsumer, int], Any]] = {
    "loop": by_loop,
    "getone": by_getone,
    "getmany": by_getmany,
    "batches": by_batches,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_read(feeder: Feeder, way: str) -> None:
    topic = feeder.topic()
    for start in range(0, 100, 5):
        feeder.send_numbers(topic, range(start, start + 5))

    async def main() -> None:
        async with consumer_of(feeder, topic) as consumer:
            assert await WAYS[way](consumer, 60) == list(range(60))
            assert await consumer.position(TopicPartition(topic, 0)) == 60
            feeder.send_numbers(topic, range(100, 110))
            assert await WAYS[way](consumer, 50) == list(range(60, 110))
            assert await consumer.lag() == {TopicPartition(topic, 0): 0}
            assert consumer.assignment() == {TopicPartition(topic, 0)}

    asyncio.run(main())


def test_getmany_of_some_partitions(feeder: Feeder) -> None:
    topic = feeder.topic(partitions=3)
    for number in range(3):
        feeder.send_numbers(topic, [number], partition=number)
    places = [TopicPartition(topic, number) for number in range(3)]

    async def numbers(
        consumer: AsyncConsumer, *chosen: TopicPartition, timeout_ms: float = PATIENCE_S * 1_000
    ) -> Any:
        polled = await consumer.getmany(*chosen, timeout_ms=timeout_ms)
        return {place: [int(record.value) for record in records] for place, records in polled.items()}

    async def main() -> None:
        async with consumer_of(feeder, topic) as consumer:
            await consumer.pause(places[0])
            assert await numbers(consumer, places[2]) == {places[2]: [2]}
            assert await numbers(consumer, places[0], places[2], timeout_ms=20) == {}
            assert consumer.paused() == {places[0]}
            assert await numbers(consumer) == {places[1]: [1]}
            waiting = asyncio.create_task(numbers(consumer, places[2]))
            await consumer.resume(places[0])
            await consumer.pause(places[1])
            assert consumer.paused() == {places[1]}
            feeder.send_numbers(topic, [9], partition=2)
            assert await waiting == {places[2]: [9]}
            assert await numbers(consumer, places[0], places[1]) == {places[0]: [0]}
            feeder.send_numbers(topic, [8], partition=1)
            assert await numbers(consumer, timeout_ms=20) == {}, "what is paused meanwhile stays so"
            await consumer.resume(places[1])
            assert await numbers(consumer) == {places[1]: [8]}
            with pytest.raises(InvalidArgumentError, match="not assigned"):
                await consumer.getmany(TopicPartition(topic, 3))

    asyncio.run(main())


def test_ends_and_wakeups(feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(3))

    async def main() -> None:
        async with consumer_of(feeder, topic, consumer_timeout_ms=50) as consumer:
            assert await by_getmany(consumer, 3) == [0, 1, 2]
            assert [record async for record in consumer] == []
            assert await consumer.poll() == {}
            assert await consumer.poll(timeout_ms=20) == {}
            waiting = asyncio.create_task(consumer.poll(timeout_ms=None))
            await asyncio.sleep(0)
            consumer.wakeup()
            assert await waiting == {}
            assert [batch async for batch in consumer.batches(timeout_ms=20)] == []
            assert [batch async for batch in consumer.batches()] == []

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"enable_auto_commit": False}])
@pytest.mark.parametrize("way", ["poll", "loop", "batches"])
def test_wakeup_ends_a_loop_that_always_finds_something(
    feeder: Feeder, way: str, options: dict[str, Any]
) -> None:
    topic = feeder.topic()
    for first in range(0, 12, 3):
        feeder.send_numbers(topic, range(first, first + 3))

    async def polls(consumer: AsyncConsumer) -> AsyncIterator[list[Any]]:
        while polled := await consumer.poll(None, max_records=2):
            yield [record.value for records in polled.values() for record in records]

    async def main() -> None:
        async with consumer_of(feeder, topic, **options) as consumer:
            loops: dict[str, Callable[[], AsyncIterator[list[Any]]]] = {
                "poll": lambda: polls(consumer),
                "loop": lambda: ([record.value] async for record in consumer),
                "batches": lambda: (batch.values async for batch in consumer.batches()),
            }
            seen: list[Any] = []
            async for values in loops[way]():
                assert not seen, "it goes on"
                seen += values
                consumer.wakeup()
                wait_until(lambda: consumer._session._task._woken, "the consumer knows")
            rest = await consumer.poll(PATIENCE_S * 1_000)
            seen += [record.value for records in rest.values() for record in records]
            assert list(map(int, seen)) == list(range(12))

    asyncio.run(main())


def test_the_record_in_hand_is_not_committed(feeder: Feeder, tmp_path: Path) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(10))
    options = {"offset_store": tmp_path, "auto_commit_interval_ms": 0}

    async def main(stop_at: int, failing: bool) -> list[int]:
        seen: list[int] = []
        async with consumer_of(feeder, topic, **options) as consumer:
            async for record in consumer:
                seen.append(int(record.value))
                if record.offset == stop_at:
                    if failing:
                        raise KeyError
                    break
        return seen

    with pytest.raises(KeyError):
        asyncio.run(main(3, failing=True))
    assert asyncio.run(main(5, failing=False)) == [3, 4, 5]
    assert asyncio.run(main(9, failing=False)) == [6, 7, 8, 9]


def test_cancelled_calls_lose_nothing(feeder: Feeder) -> None:
    topic = feeder.topic(partitions=3)
    for start in range(0, 600, 10):
        feeder.send_numbers(topic, range(start, start + 10), partition=start // 10 % 3)

    async def main() -> None:
        random = Random(5)
        found: list[Record[Any, Any]] = []
        async with consumer_of(feeder, topic, max_partition_fetch_bytes=500) as consumer:
            while len(found) < 600:
                call = consumer.getone() if random.random() < 0.5 else consumer.getmany(timeout_ms=100)
                task: asyncio.Task[Any] = asyncio.create_task(call)
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(random.choice((0, 0, 0.0005)))
                if random.random() < 0.5:
                    task.cancel()
                try:
                    result = await task
                except asyncio.CancelledError:
                    continue
                found += [result] if isinstance(result, Record) else chain.from_iterable(result.values())
        assert sorted(int(record.value) for record in found) == list(range(600))

    asyncio.run(main())


def test_other_tasks_may_make_calls_while_one_reads(feeder: Feeder) -> None:
    topic = feeder.topic(partitions=2)
    place = TopicPartition(topic, 0)

    async def main() -> None:
        seen: list[int] = []
        async with consumer_of(feeder, topic) as consumer:

            async def read() -> None:
                async for record in consumer:
                    seen.append(int(record.value))  # noqa: PERF401 - looked at meanwhile

            reader = asyncio.create_task(read())
            feeder.send_numbers(topic, range(50))
            while len(seen) < 50:
                await asyncio.sleep(0.001)
            with pytest.raises(ConcurrentUseError, match="another task reads"):
                await consumer.getone()
            await consumer.pause(place)
            assert consumer.paused() == {place}
            feeder.send_numbers(topic, range(50, 60))
            assert (await consumer.end_offsets([place]))[place] == 60
            assert await consumer.position(place) == 50
            await consumer.resume(place)
            while len(seen) < 60:
                await asyncio.sleep(0.001)
            await consumer.seek(place, 55)
            while len(seen) < 65:
                await asyncio.sleep(0.001)
            await consumer.close()
            with pytest.raises(ClosedError):
                await reader
        assert seen == [*range(60), *range(55, 60)]

    asyncio.run(main())


class Told(AsyncRebalanceListener):
    """Commits and looks at positions within its methods."""

    def __init__(self) -> None:
        self.consumer: AsyncConsumer | None = None
        self.events: list[tuple[str, set[int]]] = []

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        assert self.consumer is not None
        for partition in partitions:
            assert await self.consumer.position(partition) >= 0
        self.events.append(("assigned", {partition.partition for partition in partitions}))

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        assert self.consumer is not None
        await self.consumer.commit()
        self.events.append(("revoked", {partition.partition for partition in partitions}))


def test_members_and_listeners(feeder: Feeder) -> None:
    topic = feeder.topic(partitions=4)
    for partition in range(4):
        feeder.send_numbers(topic, range(partition * 10, partition * 10 + 10), partition=partition)
    options = {"group_id": f"async-{topic}", "enable_auto_commit": False}

    async def main() -> None:
        told = Told()
        async with consumer_of(feeder, **options) as first:
            told.consumer = first
            await first.subscribe([topic], listener=told)
            assert told.events == [("assigned", {0, 1, 2, 3})]
            assert sorted(await by_loop(first, 40)) == list(range(40))
            async with consumer_of(feeder, topic, **options) as second:
                polls = [asyncio.create_task(read_for_ever(one)) for one in (first, second)]
                while len(second.assignment()) < 2:
                    await asyncio.sleep(0.001)
                for partition in range(4):
                    feeder.send_numbers(topic, [100 + partition], partition=partition)
                while sum(len(seen[id(one)]) for one in (first, second)) < 4:
                    await asyncio.sleep(0.001)
                for poll in polls:
                    poll.cancel()
            kept = first.assignment()
            given = (
                {event for event in told.events[1:] if event[0] == "revoked"} if False else told.events[1:]
            )
            assert given[0][0] == "revoked"
            assert given[0][1] | {place.partition for place in kept} == {0, 1, 2, 3}
            assert len(given[0][1]) == 2
            both = seen[id(first)] + seen[id(second)]
            assert sorted(both) == [100, 101, 102, 103], "what was committed is not read again"

    seen: dict[int, list[int]] = {}

    async def read_for_ever(consumer: AsyncConsumer) -> None:
        values = seen[id(consumer)] = []
        async for record in consumer:
            values.append(int(record.value))  # noqa: PERF401 - looked at meanwhile

    asyncio.run(main())


def test_a_plain_listener_and_commits(feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(3))
    place = TopicPartition(topic, 0)

    class Plain(RebalanceListener):
        events: list[str]

        def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            self.events = ["assigned"]

        def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
            self.events.append("revoked")

    async def main() -> None:
        listener = Plain()
        heard: list[Any] = []
        async with consumer_of(feeder, group_id=f"plain-{topic}") as consumer:
            await consumer.subscribe(pattern=topic, listener=listener)
            assert await by_getone(consumer, 2) == [0, 1]
            await consumer.commit()
            assert await consumer.committed(place) == 2
            await consumer.commit_async({place: 1}, heard.append)
            while not heard:
                await asyncio.sleep(0.001)
            assert heard == [None]
            assert await consumer.committed(place) == 1
            await consumer.unsubscribe()
        assert listener.events == ["assigned", "revoked"]

    asyncio.run(main())


def test_what_does_not_fit(feeder: Feeder) -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'group_id'"):
        AsyncConsumer(group="g")  # type: ignore[call-arg]
    with pytest.raises(InvalidArgumentError, match="auto_offset_reset"):
        AsyncConsumer(auto_offset_reset="first")  # type: ignore[arg-type]

    async def main() -> None:
        consumer = consumer_of(feeder)
        with pytest.raises(InvalidArgumentError, match="not started"):
            await consumer.poll()
        with pytest.raises(UnknownTopicError):
            await consumer_of(feeder, "missing").start()
        async with consumer:
            with pytest.raises(InvalidArgumentError, match="nothing to read"):
                await consumer.poll()
            await consumer.subscribe(feeder.topic())
            waiting = asyncio.create_task(consumer.getone())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrentUseError, match="another task reads"):
                await consumer.getone()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(ClosedError):
            await consumer.poll()
        await consumer.stop()

    asyncio.run(main())


def test_starting_may_be_cancelled_and_does_not_stop_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        consumer = AsyncConsumer("any", bootstrap_servers="127.0.0.1:1", request_timeout_ms=3_000)
        entering = asyncio.create_task(consumer.__aenter__())
        for _ in range(100):
            await asyncio.sleep(0)
            assert not entering.done()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        with pytest.raises(ConnectionFailedError):
            async with AsyncConsumer("any", bootstrap_servers="127.0.0.1:1", request_timeout_ms=100):
                pass

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert not caplog.records


@pytest.mark.parametrize("way", ["start", "async with"])
def test_a_process_whose_start_was_cancelled_ends(way: str) -> None:
    script = f"""
        import asyncio
        from tailrace import AsyncConsumer
        async def main():
            consumer = AsyncConsumer("any", bootstrap_servers="127.0.0.1:1", request_timeout_ms=300_000)
            async with asyncio.timeout(0.1):
                if {way == "start"}:
                    await consumer.start()
                async with consumer:
                    pass
        try:
            asyncio.run(main())
        except TimeoutError:
            print("cancelled", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True)
    assert ended.stdout == "cancelled\n"


def test_a_start_that_was_cancelled_may_be_tried_again(feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, [7])

    async def main() -> None:
        consumer = consumer_of(feeder, topic, request_timeout_ms=300_000)
        with suspended(feeder.cluster.coordinator_pid):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await consumer.start()
        async with asyncio.timeout(PATIENCE_S), consumer:
            assert await by_getone(consumer, 1) == [7]

    asyncio.run(main())


@pytest.mark.parametrize("closes", [False, True])
def test_what_hangs_and_was_cancelled_does_not_keep_it_from_closing(feeder: Feeder, *, closes: bool) -> None:
    """A call before `close`, or that itself."""
    topic = feeder.topic()
    feeder.send_numbers(topic, range(3))

    async def main() -> None:
        consumer = consumer_of(feeder, topic, group_id=f"of-{topic}", request_timeout_ms=300_000)
        async with asyncio.timeout(PATIENCE_S):
            await consumer.start()
            assert await by_getone(consumer, 2) == [0, 1]
            with suspended(feeder.cluster.coordinator_pid):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await (consumer.close() if closes else consumer.commit())
                with suppress(ClosedError):
                    await consumer.close()
                await consumer.close()
                with pytest.raises(ClosedError):
                    await consumer.commit()

    asyncio.run(main())


def test_a_getmany_of_some_partitions_that_is_cancelled_takes_nothing(feeder: Feeder) -> None:
    """Also where it waits for its turn, since other tasks make calls all the time."""
    topic, random = feeder.topic(), Random(1)
    for start in range(0, 300, 3):
        feeder.send_numbers(topic, range(start, start + 3))

    async def main() -> None:
        seen: list[int] = []
        async with consumer_of(feeder, topic) as consumer:
            (name,) = consumer.assignment()

            async def look() -> None:
                for _ in range(3):
                    await consumer.position(name)

            while len(seen) < 300:
                looks = [asyncio.create_task(look()) for _ in range(2)]
                call = asyncio.create_task(
                    consumer.getmany(name, timeout_ms=PATIENCE_S * 1_000, max_records=3)
                )
                looks += [asyncio.create_task(look()) for _ in range(2)]
                if random.random() < 0.5:
                    for _ in range(random.choice((1, 2, 5, 20, 60, 150))):
                        await asyncio.sleep(0)
                    call.cancel()
                await asyncio.wait([call, *looks])
                polled = {} if call.cancelled() else call.result()
                seen += [record.offset for records in polled.values() for record in records]
        assert seen == list(range(300))

    asyncio.run(main())
