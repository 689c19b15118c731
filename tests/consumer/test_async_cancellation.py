"""Members in one loop that come, go, and are cancelled anywhere: each record counts once."""

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tailrace import AsyncConsumer, TopicPartition, read_local_state
from tailrace.errors import InvalidArgumentError
from tailrace.protocol.record import Record

from .conftest import Feeder

PARTITIONS = 4
RECORDS = 400
Polled = dict[TopicPartition, list[Record[Any, Any]]]


class OddError(Exception):
    """The application's."""


class Member:
    """Counts what it reads, in local transactions; `read` is what is stored, by partition."""

    def __init__(self, options: dict[str, Any], topic: str, random: Random, read: dict[int, int]) -> None:
        self._options = options
        self._topic = topic
        self._random = random
        self._read = read

    def over(self) -> bool:
        """Is all stored, whoever did it?"""
        return sum(self._read.values()) == RECORDS

    async def run(self) -> None:
        """Life after life, each of some steps."""
        while not self.over():
            async with AsyncConsumer(self._topic, **self._options) as consumer:
                for _ in range(self._random.randint(5, 30)):
                    if self.over():
                        return
                    step = asyncio.create_task(self._step(consumer))
                    if self._random.random() < 0.4:
                        await asyncio.sleep(self._random.random() * 0.005)
                        step.cancel()
                    await asyncio.wait([step])
                    if not step.cancelled():
                        step.result()
                for place in consumer.assignment():
                    with suppress(InvalidArgumentError):  # another member has it meanwhile
                        self._note(place, await consumer.committed(place) or 0)

    async def _step(self, consumer: AsyncConsumer) -> None:
        polled = await consumer.poll(timeout_ms=10, max_records=self._random.randint(1, 20))
        try:
            for place in list(polled):
                await self._count(consumer, place, polled.pop(place))
        except OddError:
            await self._go_back(consumer, polled)
        except asyncio.CancelledError:
            await self._go_back(consumer, polled)
            raise

    async def _count(
        self, consumer: AsyncConsumer, place: TopicPartition, records: list[Record[Any, Any]]
    ) -> None:
        async with consumer.local_transaction(place) as transaction:
            for record in records:
                count = int(transaction.get(record.value) or 0)
                transaction.put(record.value, b"%d" % (count + 1))
                if self._random.random() < 0.1:
                    await asyncio.sleep(0)
            if self._random.random() < 0.1:
                raise OddError
        self._note(place, records[-1].offset + 1)

    async def _go_back(self, consumer: AsyncConsumer, polled: Polled) -> None:
        """To what it did not come to; what a transaction took back is read again by itself."""
        for place, records in polled.items():
            await consumer.seek(place, records[0].offset)

    def _note(self, place: TopicPartition, offset: int) -> None:
        self._read[place.partition] = max(offset, self._read.get(place.partition, 0))


@pytest.mark.parametrize("seed", [1, 2])
def test_each_record_counts_once(feeder: Feeder, tmp_path: Path, seed: int) -> None:
    topic = feeder.topic(partitions=PARTITIONS)
    for number in range(RECORDS):
        if number % 10 == 0:
            feeder.send_numbers(topic, range(number, number + 10), partition=number // 10 % PARTITIONS)
    options: dict[str, Any] = {
        "bootstrap_servers": feeder.cluster.bootstrap_servers,
        "group_id": f"cancelled-{topic}",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "offset_store": tmp_path,
    }
    random, read = Random(seed), dict[int, int]()

    async def main() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(Member(options, topic, random, read).run() for _ in range(3)))

    asyncio.run(main())
    counts = {int(entry.key): entry.value for entry in read_local_state(tmp_path)}
    assert counts == dict.fromkeys(range(RECORDS), b"1")
