"""A batch without the records that do not deserialize."""

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.client.serializers import Deserializer
from tailrace.protocol.decode import Batch, BytesRecord, Column
from tailrace.protocol.record import Record, TopicPartition

from .decoding import Decoding, deserialize
from .failures import undeserialized

if TYPE_CHECKING:
    import numpy
    import pyarrow


class Rejected(NamedTuple):
    """What is not handed over, with its stored bytes. A whole batch stands as one record, of `records`."""

    record: BytesRecord
    reason: str
    records: int = 1


class SiftedBatch(Batch):
    """The records of `whole` at the indexes `kept`. Keys and values are those that the deserializers gave."""

    def __init__(self, whole: Batch, kept: Sequence[int], keys: list[Any], values: list[Any]) -> None:
        super().__init__(whole.header, whole.body)
        self._whole = whole
        self._kept = kept
        self.count = len(kept)
        self.keys, self.values = keys, values
        self.offsets = _at(kept, whole.offsets)
        self.timestamps = _at(kept, whole.timestamps)
        self.headers = _at(kept, whole.headers)

    def records(self, topic: str, partition: int) -> list[BytesRecord]:
        """As `Batch.records`, with what the deserializers gave."""
        columns = (self.offsets, self.timestamps, self.keys, self.values, self.headers)
        return list(map(Record, repeat(topic), repeat(partition), *columns))

    def to_arrow(self) -> "pyarrow.RecordBatch":
        """As `Batch.to_arrow`: the stored bytes, of the records that are kept."""
        whole = self._whole.to_arrow()
        kept = self._kept
        return whole.slice(kept.start) if isinstance(kept, range) else whole.take(list(kept))

    def to_numpy(
        self, dtype: Any = None, column: Column = "value", start: int = 0
    ) -> "numpy.ndarray[Any, Any]":
        """As `Batch.to_numpy`: the stored bytes, of the records that are kept."""
        from tailrace.protocol.fixed_width import array_of

        return array_of(self._whole, dtype, column, self._kept[start:])


def sift(
    name: TopicPartition, batch: Batch, first: int, decoding: Decoding
) -> tuple[SiftedBatch, list[Rejected]]:
    """Deserialize a batch from record `first` on: what can be handed over, and what cannot."""
    keys, bad_keys = _each(decoding.key, batch.keys[first:])
    values, bad_values = _each(decoding.value, batch.values[first:])
    bad = sorted(bad_keys.keys() | bad_values.keys())
    good = range(len(values)) if not bad else sorted(set(range(len(values))).difference(bad))
    kept = range(first, batch.count) if not bad else [first + index for index in good]
    rejected = []
    for index in bad:
        what, cause = ("key", bad_keys[index]) if index in bad_keys else ("value", bad_values[index])
        at = first + index
        record = Record(
            name.topic,
            name.partition,
            batch.offsets[at],
            batch.timestamps[at],
            batch.keys[at],
            batch.values[at],
            batch.headers[at],
        )
        rejected.append(Rejected(record, undeserialized(name, record.offset, what, cause)))
    return SiftedBatch(batch, kept, _at(good, keys), _at(good, values)), rejected


def _each(deserializer: Deserializer | None, items: list[Any]) -> tuple[list[Any], dict[int, Exception]]:
    """Every item deserialized, None for those that are not, and why these are not."""
    results, error = deserialize(deserializer, items)
    failed: dict[int, Exception] = {}
    if error is None or deserializer is None:
        return results, failed
    failed[len(results)] = error
    results.append(None)
    for index in range(len(results), len(items)):
        try:
            results.append(None if items[index] is None else deserializer(items[index]))
        except Exception as another:  # noqa: BLE001 - the application's code; told with the record
            failed[index] = another
            results.append(None)
    return results, failed


def _at(indexes: Sequence[int], items: Sequence[Any]) -> list[Any]:
    return [items[index] for index in indexes]
