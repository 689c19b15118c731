"""Records in columns of which the values lie in a buffer: what `columns.Columns` is for lists.

Needs numpy, and is imported only where there are arrays, or much text.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from typing import Any

import numpy as np

from tailrace.client.serializers import Serializer
from tailrace.protocol.buffers import PackedItems, PackedTimestamps
from tailrace.protocol.packed import Integers, Packed, body_items, body_timestamps, nulls, packed_items
from tailrace.protocol.record import Headers

from .arguments import check_length, column_of, header_column_of, is_array, timestamps_of
from .arrays import packed_of, times_of
from .batch import RECORD_OVERHEAD_BYTES, Batch
from .key_hashes import places_of
from .partitioner import Partitioner


class PackedColumns:
    """Records whose keys and values lie in buffers. `header_sizes`: the bytes of each one's headers.

    `fresh`: the buffers were made for them, and hold nothing else.
    """

    __slots__ = ("fresh", "header_sizes", "headers", "keys", "record_count", "timestamps", "values")
    packed = True
    piece_records = 32_768
    """With a hundred partitions enough for each of them that what is done once a partition does not count."""

    def __init__(
        self,
        values: Packed,
        keys: Packed | None,
        timestamps: int | Integers | None,
        headers: Sequence[Headers] | None = None,
        header_sizes: Integers | None = None,
    ) -> None:
        self.record_count = len(values)
        self.values = values
        self.keys = keys
        self.timestamps = timestamps
        self.headers = headers
        self.header_sizes = header_sizes
        self.fresh = False

    def cut(self, start: int, stop: int) -> "PackedColumns":
        """The records from `start` to before `stop`, as a view."""
        if start == 0 and stop >= self.record_count:
            return self
        stamps = self.timestamps
        return PackedColumns(
            self.values.cut(start, stop),
            None if self.keys is None else self.keys.cut(start, stop),
            stamps if stamps is None or isinstance(stamps, int) else stamps[start:stop],
            None if self.headers is None else self.headers[start:stop],
            None if self.header_sizes is None else self.header_sizes[start:stop],
        )

    def ends(self) -> Sequence[int]:
        """The bytes of keys, values and headers before each record, and of all."""
        width = self._width
        if width:
            return range(0, width * (self.record_count + 1), width)
        ends = self.values.ends()
        if self.keys is not None:
            ends += self.keys.ends()
        if self.header_sizes is not None:
            ends[1:] += np.cumsum(self.header_sizes)
        return ends.data

    def larger_than(self, limit: int) -> int:
        """The bytes of a record that has more than `limit`; 0 if none has."""
        largest = self._width or int(np.diff(np.asarray(self.ends())).max(initial=0))
        return largest if largest > limit else 0

    @property
    def memory(self) -> int:
        """Bytes that the records take in batches, at most."""
        return self.ends()[-1] + RECORD_OVERHEAD_BYTES * self.record_count

    def dealt(
        self, partitioner: Partitioner, count: int, available: Sequence[int], sticky: int
    ) -> list[tuple[int, "PackedColumns"]]:
        """The records by partition, each in their order; those that have no key go to `sticky`."""
        keys = nulls(self.record_count) if self.keys is None else self.keys
        places = places_of(keys, partitioner, count, available, sticky)
        order = np.argsort(places, kind="stable")
        stops = np.cumsum(np.bincount(places, minlength=count)).tolist()
        shares = [
            (place, start, stop) for place, (start, stop) in enumerate(pairwise([0, *stops])) if stop > start
        ]
        if self.values.offsets is None and keys.offsets is None:
            return [(place, self._taken(order[start:stop])) for place, start, stop in shares]
        whole = self._taken(order)  # one by one would cost a look at all offsets each time
        return [(place, whole.cut(start, stop)) for place, start, stop in shares]

    def pour(self, batch: Batch, time_ms: int, *, kept: bool) -> None:
        """Add all to a batch; a copy of them, if the batch is `kept` beyond this call."""
        part = self.owned() if kept and not self.fresh else self
        if part.timestamps is None:
            part = PackedColumns(part.values, part.keys, time_ms, part.headers)
        batch.add_part(part)

    def owned(self) -> "PackedColumns":
        """A copy, in memory that holds nothing else."""
        stamps = self.timestamps
        return PackedColumns(
            self.values.owned(),
            None if self.keys is None else self.keys.owned(),
            stamps if stamps is None or isinstance(stamps, int) else stamps.copy(),
            self.headers,
        )

    @property
    def _width(self) -> int:
        """The bytes that each record has, if that is seen at a glance; else 0."""
        if self.values.offsets is not None or self.header_sizes is not None or not self.record_count:
            return 0
        if self.keys is None:
            return self.values.width
        return 0 if self.keys.offsets is not None else self.values.width + self.keys.width

    def _taken(self, order: Any) -> "PackedColumns":
        stamps = self.timestamps
        headers = self.headers
        taken = PackedColumns(
            self.values.take(order),
            None if self.keys is None else self.keys.take(order),
            stamps if stamps is None or isinstance(stamps, int) else stamps.take(order),
            None if headers is None else [headers[index] for index in order.tolist()],
            None if self.header_sizes is None else self.header_sizes.take(order),
        )
        taken.fresh = True
        return taken


def packed_columns_of(
    values: Any,
    keys: Iterable[Any] | None,
    headers: Iterable[Headers | None] | None,
    timestamps_ms: Any,
    key_serializer: Serializer | None,
) -> PackedColumns:
    """What `send_many` was given, checked. Raises InvalidArgumentError or SerializationError."""
    value_column = packed_of("values", values)
    count = len(value_column)
    key_column = None
    if keys is not None:
        if key_serializer is None and is_array(keys):
            key_column = packed_of("keys", keys)
        else:
            key_column = packed_items(column_of("keys", keys, key_serializer))
        check_length("keys", key_column, count)
    header_column, header_sizes = None, None
    if headers is not None:
        header_column, sizes = header_column_of(headers, count)
        header_sizes = np.array(sizes, np.int64)
    stamps: int | Integers | None
    if is_array(timestamps_ms):
        stamps = times_of(timestamps_ms, count)
    else:
        listed = timestamps_of(timestamps_ms, count)
        stamps = listed if listed is None or isinstance(listed, int) else np.array(listed, np.int64)
    return PackedColumns(value_column, key_column, stamps, header_column, header_sizes)


def body_columns(
    parts: Sequence[PackedColumns],
) -> tuple[PackedItems, PackedItems | None, PackedTimestamps, list[Headers] | None]:
    """Values, keys, timestamps and headers of all parts in a row, as a batch's body has them."""
    keys = None
    if any(part.keys is not None for part in parts):
        keys = body_items([nulls(part.record_count) if part.keys is None else part.keys for part in parts])
    headers: list[Headers] | None = None
    if any(part.headers is not None for part in parts):
        headers = []
        for part in parts:
            headers += repeat((), part.record_count) if part.headers is None else part.headers
    stamps = []
    for part in parts:
        assert part.timestamps is not None
        stamps.append((part.record_count, part.timestamps))
    return body_items([part.values for part in parts]), keys, body_timestamps(stamps), headers
