"""`AsyncProducer`: batches, memory, order, cancellation, the loop that goes on."""

import asyncio
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tailrace import AsyncProducer, Consumer
from tailrace.protocol.errors import (
    BufferFullError,
    ClosedError,
    ConcurrentUseError,
    DeliveryFailedError,
    InvalidArgumentError,
    SerializationError,
    UnknownTopicError,
)
from tailrace.testing import Cluster

from ..patience import PATIENCE_S, wait_until
from ..suspended import suspended


def stored(cluster: Cluster, topic: str, count: int) -> list[bytes]:
    """Everything in a topic of one partition, which must be so many records."""
    values: list[bytes] = []
    with Consumer(
        topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        while len(values) < count:
            for records in consumer.poll(timeout_ms=PATIENCE_S * 1_000, max_records=10_000).values():
                values += [record.value for record in records]
        assert sum(consumer.end_offsets(consumer.assignment()).values()) == count
    return values


def test_what_a_partitioner_raises_is_told_as_it_is(cluster: Cluster, topic: Callable[..., str]) -> None:
    def partitioner(*_: object) -> int:
        raise TimeoutError("its own")

    async def main() -> None:
        async with AsyncProducer(cluster.bootstrap_servers, partitioner=partitioner) as producer:
            for _ in range(2):  # the topic is looked up in between
                with pytest.raises(TimeoutError, match="its own"):
                    await producer.send(name, b"value", key=b"key")

    name = topic()
    asyncio.run(main())


def test_a_hundred_thousand(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def main() -> None:
        async with AsyncProducer(cluster.bootstrap_servers) as producer:
            deliveries = [await producer.send(name, b"%d" % number) for number in range(100_000)]
            last = await deliveries[-1]
            assert last.offset == 99_999
            assert [delivery.result().offset for delivery in deliveries[:3]] == [0, 1, 2]
            many = await producer.send_many(name, [b"%d" % number for number in range(100_000, 130_000)])
            ranges = await many
            assert sum(found.record_count for found in ranges) == len(many) == 30_000
            assert (await producer.send_and_wait(name, b"130000")).offset == 130_000
            assert await producer.partitions_for(name) == {0}
            assert producer.metrics()["records_acked"] == 130_001
        assert producer.closed

    asyncio.run(main())
    assert stored(cluster, name, 130_001) == [b"%d" % number for number in range(130_001)]


def test_arrays(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def main() -> None:
        async with AsyncProducer(cluster.bootstrap_servers, buffer_memory=300_000, linger_ms=0) as producer:
            many = await producer.send_many(name, np.array([b"%06d" % number for number in range(50_000)]))
            more = await producer.send_many(name, pa.array(["050000", "050001"]), pa.array([None, "k"]))
            assert sum(found.record_count for found in await many) == 50_000
            assert [found.record_count for found in await more] == [2]

    asyncio.run(main())
    assert [int(value) for value in stored(cluster, name, 50_002)] == list(range(50_002))


def test_who_waits_for_memory_gets_it_in_turn(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncProducer(
            cluster.bootstrap_servers, buffer_memory=64 * 1024, linger_ms=1_000, batch_size=16 * 1024
        ) as producer:
            ticker = asyncio.create_task(tick())
            value = bytes(10_000)
            await producer.send(name, b"0000")
            tasks = [
                asyncio.create_task(producer.send(name, b"%04d" % number + value)) for number in range(1, 200)
            ]
            await asyncio.gather(*tasks)
            many = await producer.send_many(name, [b"%04d" % number + value for number in range(200, 400)])
            await producer.flush()
            assert many.done()
            ticker.cancel()
            assert ticks > 200

    asyncio.run(main())
    assert [int(value[:4]) for value in stored(cluster, name, 400)] == list(range(400))


def test_memory_that_stays_full(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def main() -> None:
        producer = AsyncProducer(
            cluster.bootstrap_servers,
            buffer_memory=64 * 1024,
            max_block_ms=1_000,
            delivery_timeout_ms=600_000,
        )
        await producer.send_and_wait(name, b"first")
        with suspended(cluster.pid(1)):
            with pytest.raises(BufferFullError, match=r"max_block_ms \(1000 ms\)"):
                await asyncio.gather(*(producer.send(name, bytes(10_000)) for _ in range(20)))
            with pytest.raises(BufferFullError) as raised:
                await producer.send_many(name, [bytes(10_000)] * 20)
            assert raised.value.accepted == 0
        await producer.flush()
        await producer.send_and_wait(name, b"last")
        await producer.stop()

    asyncio.run(main())


def test_cancelled_sends_and_waits_disturb_nobody(cluster: Cluster, topic: Callable[..., str]) -> None:
    """What was accepted is stored once; what was cancelled while it waited is not stored at all."""
    name = topic()
    accepted: list[bytes] = []

    async def main() -> None:
        random = Random(11)
        async with AsyncProducer(cluster.bootstrap_servers, buffer_memory=64 * 1024) as producer:

            async def one(number: int) -> None:
                value = b"%05d" % number + bytes(5_000)
                delivery = await producer.send(name, value)
                accepted.append(value)
                await delivery

            tasks = []
            for number in range(1_000):
                tasks.append(asyncio.create_task(one(number)))
                if random.random() < 0.3:
                    await asyncio.sleep(0)
                if random.random() < 0.3:
                    random.choice(tasks).cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {type(None), asyncio.CancelledError}

    asyncio.run(main())
    assert stored(cluster, name, len(accepted)) == accepted


def test_errors(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def main() -> None:
        async with AsyncProducer(
            cluster.bootstrap_servers, value_serializer="str", linger_ms=60_000
        ) as producer:
            with pytest.raises(UnknownTopicError, match=f"did you mean '{name}'"):
                await producer.send(name + "x", "v")
            with pytest.raises(InvalidArgumentError):
                await producer.send(None, "v")  # type: ignore[arg-type]
            with pytest.raises(SerializationError):
                await producer.send(name, b"bytes")
            delivery = await producer.send(name, "v")
            with pytest.raises(InvalidArgumentError, match="no answer yet"):
                delivery.result()
            heard: list[Any] = []
            delivery.add_callback(heard.append).add_errback(heard.append)
            await producer.flush()
            metadata = await delivery
            while not heard:
                await asyncio.sleep(0)
            assert heard == [metadata]
        with pytest.raises(ClosedError):
            await producer.send(name, "v")
        await producer.close()

    asyncio.run(main())


def test_leaving_with_undelivered_records(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()

    async def fail(error: BaseException | None) -> None:
        with suspended(cluster.pid(1)):
            async with AsyncProducer(cluster.bootstrap_servers, delivery_timeout_ms=200) as producer:
                delivery = await producer.send(name, b"v")
                if error is not None:
                    raise error
        assert delivery.done()

    with pytest.raises(DeliveryFailedError, match="1 record not acknowledged"):
        asyncio.run(fail(None))
    with pytest.raises(KeyError) as raised:
        asyncio.run(fail(KeyError("the application's")))
    assert "not acknowledged" in raised.value.__notes__[0]


def test_a_cancelled_close_ends_the_producer(cluster: Cluster, topic: Callable[..., str]) -> None:
    """As Ctrl-C while `asyncio.run` waits for it does: no thread goes on waiting for acknowledgements."""
    name = topic()
    before = set(threading.enumerate())

    def are_gone() -> bool:
        return set(threading.enumerate()) <= before

    async def main() -> None:
        producer = AsyncProducer(cluster.bootstrap_servers, delivery_timeout_ms=600_000)
        await producer.send_and_wait(name, b"stored")
        with suspended(cluster.pid(1)):
            delivery = await producer.send(name, b"not acknowledged")
            closing = asyncio.create_task(producer.close())
            await asyncio.sleep(0)  # it has begun
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert producer.closed
            with pytest.raises(ClosedError):
                await delivery
            with pytest.raises(ClosedError):
                await producer.send(name, b"too late")
            wait_until(are_gone, "the threads of the producer have ended")
        await producer.close()

    asyncio.run(main())


def test_who_comes_while_others_wait_comes_behind_them(cluster: Cluster, topic: Callable[..., str]) -> None:
    """Also at the moment when the one who had its turn has let it go, and the next has not taken it yet."""
    name = topic()

    async def main() -> None:
        sent: list[int] = []
        options = {"buffer_memory": 64 * 1024, "batch_size": 16 * 1024}
        async with AsyncProducer(cluster.bootstrap_servers, **options) as producer:
            await producer.send(name, b"0000")
            number = iter(range(1, 600))

            async def one() -> None:
                mine = next(number)
                sent.append(mine)
                await producer.send(name, b"%04d" % mine + bytes(10_000))

            async def come_and_go() -> None:
                for _ in range(60):
                    await one()
                    await asyncio.sleep(0)

            await asyncio.gather(*(come_and_go() for _ in range(8)))
        assert sent == sorted(sent)

    asyncio.run(main())
    values = stored(cluster, name, 481)
    assert [int(value[:4]) for value in values] == list(range(481))


def test_another_loop_is_refused(cluster: Cluster, topic: Callable[..., str]) -> None:
    name = topic()
    producer = AsyncProducer(cluster.bootstrap_servers)
    asyncio.run(producer.send_and_wait(name, b"first"))
    with pytest.raises(ConcurrentUseError, match="belongs to the asyncio loop"):
        asyncio.run(producer.send(name, b"second"))
    producer._sync.close()
    assert stored(cluster, name, 1) == [b"first"]
