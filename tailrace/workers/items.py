"""What a handler is given at a time: a record or a batch, with what is needed to bury it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.consumer import Consumer
from tailrace.consumer.decoding import Decoding
from tailrace.consumer.failures import undeserialized
from tailrace.consumer.sift import Rejected
from tailrace.protocol.record import Record, TopicPartition

from .board import Place

AnyRecord = Record[Any, Any]


class Item(NamedTuple):
    """`given` is the handler's, None if nothing of it deserializes.

    `originals` gives the records with their bytes; `key` is that of a record, a batch has none.
    """

    partition: TopicPartition
    offset: int
    next_offset: int
    records: int
    given: AnyRecord | ColumnBatch | None
    key: bytes | None
    originals: Callable[[], list[AnyRecord]]
    rejected: Sequence[Rejected]

    @property
    def place(self) -> Place:
        """Its first record."""
        return Place(self.partition.topic, self.partition.partition, self.offset)


class Group(NamedTuple):
    """Items of one partition that came together."""

    partition: TopicPartition
    items: list[Item]


def one_by_one(consumer: Consumer, decoding: Decoding) -> Iterator[Group]:
    """Record by record, so that partitions can move between two; ends when none comes for a while."""
    for record in consumer:
        item = of_record(record, decoding)
        yield Group(item.partition, [item])


def by_poll(
    consumer: Consumer, decoding: Decoding, records_max: int | None, timeout_ms: float
) -> Iterator[Group]:
    """The records of one poll, a group for each partition."""
    for partition, records in consumer.poll(timeout_ms, records_max).items():
        yield Group(partition, [of_record(record, decoding) for record in records])


def by_batch(consumer: Consumer, decoding: Decoding, timeout_ms: float) -> Iterator[Group]:
    """Batch by batch, as they were produced."""
    for batch in consumer.batches(timeout_ms):
        item = of_batch(batch, decoding)
        yield Group(item.partition, [item])


def of_record(record: AnyRecord, decoding: Decoding) -> Item:
    """A record with its bytes, through the deserializers."""
    partition = TopicPartition(record.topic, record.partition)
    given: AnyRecord | None = record
    rejected: list[Rejected] = []
    if not decoding.plain:
        what = "key"
        try:
            key = record.key if record.key is None else _apply(decoding.key, record.key)
            what = "value"
            value = record.value if record.value is None else _apply(decoding.value, record.value)
        except Exception as error:  # noqa: BLE001 - the application's code; it is told with the record
            given = None
            rejected.append(Rejected(record, undeserialized(partition, record.offset, what, error)))
        else:
            given = Record(*partition, record.offset, record.timestamp, key, value, record.headers)
    return Item(partition, record.offset, record.offset + 1, 1, given, record.key, lambda: [record], rejected)


def of_batch(batch: ColumnBatch, decoding: Decoding) -> Item:
    """A batch with its bytes, through the deserializers."""
    partition = TopicPartition(batch.topic, batch.partition)
    given, rejected = (batch, []) if decoding.plain else batch.sifted(decoding.key, decoding.value)
    return Item(
        partition,
        batch.offsets[0],
        batch.offsets[-1] + 1,
        len(batch),
        given if len(given) else None,
        None,
        batch.records,
        rejected,
    )


def _apply(function: Any, item: Any) -> Any:
    return item if function is None else function(item)
