"""Records in columns, as `send_many` gets them."""

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, repeat
from operator import add, length_hint, mod, sub
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from tailrace.client.serializers import Serializer
from tailrace.protocol.record import Headers

from .arguments import check_length, column_of, header_column_of, is_array, texts_of, timestamps_of
from .batch import RECORD_OVERHEAD_BYTES, Batch, Value
from .partitioner import Partitioner

PIECE_RECORDS: Final = 8_192
PACKED_TEXTS_MIN: Final = 4_096
"""With numpy, so many texts that are not all ASCII become one buffer. With fewer, what is done once a call
costs more, and so does a batch that ends where others follow: it holds records of one kind."""
PACKED_TEXT_CHARACTERS_MAX: Final = 200
"""Longer ones, on average, are encoded as fast one by one."""
_RUN_RECORDS: Final = 1_024
"""So many are looked at together for one that is too large."""

T = TypeVar("T")


class Records(Protocol):
    """Records in columns, of either kind: `Columns` of lists, or `PackedColumns` of arrays."""

    @property
    def record_count(self) -> int:
        """How many there are."""

    @property
    def packed(self) -> bool:
        """Do they lie in buffers? A batch holds records of one kind only."""

    @property
    def piece_records(self) -> int:
        """How many are shared out and given memory together."""

    @property
    def keys(self) -> object | None:
        """Their keys; None: there are none."""

    def larger_than(self, limit: int) -> int:
        """The bytes of a record that has more than `limit`; 0 if none has."""

    @property
    def memory(self) -> int:
        """Bytes that the records take in batches, at most."""

    def ends(self) -> Sequence[int]:
        """The bytes of keys, values and headers before each record, and of all."""

    def cut(self, start: int, stop: int) -> Self:
        """The records from `start` to before `stop`."""

    def dealt(
        self, partitioner: Partitioner, count: int, available: Sequence[int], sticky: int
    ) -> list[tuple[int, Self]]:
        """The records by partition, each in their order; those that have no key go to `sticky`."""

    def pour(self, batch: Batch, time_ms: int, *, kept: bool) -> None:
        """Add all to a batch, by `time_ms` if they have no timestamps.

        Not `kept`: the batch is encoded before the application can change what it gave.
        """


class Columns(NamedTuple):
    """Records in lists.

    `bounds` are the bytes of keys, values and headers before each record and behind the last, from any
    number on: a range if all records have one size, so that counting costs nothing in any part of them.
    `value_bounds` are those of the values alone; None: they are still to be counted, or there are nulls.
    `texts`: the values are text, all of it ASCII.
    """

    values: Sequence[Value]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None
    timestamps: int | Sequence[int] | None
    bounds: Sequence[int]
    value_bounds: Sequence[int] | None = None
    texts: bool = False

    @property
    def record_count(self) -> int:
        """How many records there are."""
        return len(self.values)

    @property
    def packed(self) -> bool:
        """Do they lie in buffers?"""
        return False

    @property
    def piece_records(self) -> int:
        """How many are shared out and given memory together."""
        return PIECE_RECORDS

    def larger_than(self, limit: int) -> int:
        """The bytes of a record that has more than `limit`; 0 if none has."""
        bounds = self.bounds
        if isinstance(bounds, range):
            return bounds.step if bounds.step > limit else 0
        for start in range(0, len(bounds) - 1, _RUN_RECORDS):
            run = bounds[start : start + _RUN_RECORDS + 1]
            if run[-1] - run[0] > limit:  # else none of them has so much
                largest: int = max(map(sub, islice(run, 1, None), run))
                if largest > limit:
                    return largest
        return 0

    @property
    def memory(self) -> int:
        """Bytes that the records take in batches, at most."""
        return self.bounds[-1] - self.bounds[0] + RECORD_OVERHEAD_BYTES * len(self.values)

    def ends(self) -> Sequence[int]:
        """The bytes of keys, values and headers before each record, and of all."""
        return self.bounds

    def cut(self, start: int, stop: int) -> "Columns":
        """The records from `start` to before `stop`."""
        stamps = self.timestamps
        bounds = self.bounds[start : stop + 1]
        own = self.value_bounds
        return Columns(
            self.values[start:stop],
            None if self.keys is None else self.keys[start:stop],
            None if self.headers is None else self.headers[start:stop],
            stamps if stamps is None or isinstance(stamps, int) else stamps[start:stop],
            bounds,
            own if own is None else bounds if own is self.bounds else own[start : stop + 1],
            self.texts,
        )

    def dealt(
        self, partitioner: Partitioner, count: int, available: Sequence[int], sticky: int
    ) -> list[tuple[int, "Columns"]]:
        """The records by partition, each in their order; those that have no key go to `sticky`."""
        places = _places(self, partitioner, count, available, sticky)
        values = _dealt(self.values, places, count)
        keys = None if self.keys is None else _dealt(self.keys, places, count)
        headers = None if self.headers is None else _dealt(self.headers, places, count)
        bounds = _dealt_bounds(self.bounds, places, [len(column) for column in values])
        stamps = self.timestamps
        times = None if stamps is None or isinstance(stamps, int) else _dealt(stamps, places, count)
        return [
            (
                place,
                Columns(
                    values[place],
                    None if keys is None else keys[place],
                    None if headers is None else headers[place],
                    stamps if times is None else times[place],
                    bounds[place],
                    self._dealt_value_bounds(bounds[place], len(values[place])),
                    self.texts,
                ),
            )
            for place in range(count)
            if values[place]
        ]

    def pour(self, batch: Batch, time_ms: int, *, kept: bool) -> None:
        """Add all to a batch, by `time_ms` if they have no timestamps. None of them can change any more."""
        stamps = self.timestamps
        times = time_ms if stamps is None else stamps
        batch.extend(self.values, self.keys, self.headers, times, self.value_bounds, texts=self.texts)

    def _dealt_value_bounds(self, bounds: Sequence[int], count: int) -> Sequence[int] | None:
        """Of `count` records with these bounds, which have been dealt."""
        own = self.value_bounds
        if own is self.bounds:
            return bounds
        return _even_bounds(own.step, count) if isinstance(own, range) else None


def columns_of(
    values: Iterable[Any],
    keys: Iterable[Any] | None,
    headers: Iterable[Headers | None] | None,
    timestamps_ms: int | Iterable[int] | None,
    *,
    serializers: tuple[Serializer | None, Serializer | None],
) -> Records:
    """What `send_many` was given, checked; `serializers` are those of keys and of values.

    Raises InvalidArgumentError or SerializationError that name the first thing that does not fit.
    """
    key_serializer, value_serializer = serializers
    if isinstance(values, list):
        values = values.copy()  # what was looked at does not change any more
    if isinstance(keys, list):
        keys = keys.copy()
    texts = texts_of(values) if value_serializer is None else None
    plain = texts is not None and all(map(str.isascii, texts))
    if texts is not None:
        packs = keys is None and not plain and _packs(texts)
    else:
        packs = value_serializer is None and is_array(values)
    if packs:
        from .packed_columns import packed_columns_of

        return packed_columns_of(values, keys, headers, timestamps_ms, key_serializer)
    value_column = texts if plain and texts else column_of("values", values, value_serializer)
    count = len(value_column)
    key_column = None
    if keys is not None:
        key_column = column_of("keys", keys, key_serializer)
        check_length("keys", key_column, count)
    header_column, header_sizes = (None, None) if headers is None else header_column_of(headers, count)
    stamps = timestamps_of(timestamps_ms, count)
    sizes, nulls = _lengths(value_column)
    if key_column is None and header_sizes is None:
        bounds = _summed(sizes)
        value_bounds = None if nulls else bounds
    else:
        width = _width(sizes)
        value_bounds = _even_bounds(width, count) if width else None
        if key_column is not None:
            sizes = list(map(add, sizes, _lengths(key_column)[0]))
        if header_sizes is not None:
            sizes = list(map(add, sizes, header_sizes))
        bounds = _summed(sizes)
    return Columns(value_column, key_column, header_column, stamps, bounds, value_bounds, plain)


def _packs(texts: Sequence[str]) -> bool:
    """Is it faster to encode many of these texts at once? With keys it is not: few go to each partition."""
    count = len(texts)
    return (
        count >= PACKED_TEXTS_MIN
        and sys.modules.get("numpy") is not None
        and sum(map(len, texts)) <= count * PACKED_TEXT_CHARACTERS_MAX
    )


def _places(
    columns: Columns, partitioner: Partitioner, count: int, available: Sequence[int], sticky: int
) -> list[int]:
    """Each record's partition."""
    keys = columns.keys
    if partitioner.key_hash is None:
        chosen = keys if keys is not None else repeat(None, columns.record_count)
        return list(map(partitioner.choose, chosen, repeat(count), repeat(available)))
    assert keys is not None
    if all(keys):
        return list(map(mod, map(partitioner.key_hash, keys), repeat(count)))  # type: ignore[arg-type]
    places = map(partitioner.place, keys, repeat(count), repeat(available))
    return [sticky if place is None else place for place in places]


def _dealt(items: Sequence[T], places: Sequence[int], count: int) -> list[list[T]]:
    """The items by place, from 0 to before `count`."""
    buckets: list[list[Any]] = [[] for _ in range(count)]
    deque(map(list.append, map(buckets.__getitem__, places), items), maxlen=0)
    return buckets


def _summed(sizes: list[int]) -> Sequence[int]:
    """Where each record would begin and the last one end, if all of them lay one after the other."""
    width = _width(sizes)
    return _even_bounds(width, len(sizes)) if width else list(accumulate(sizes, initial=0))


def _width(sizes: list[int]) -> int:
    """The size that all have; 0 if they differ."""
    return sizes[0] if sizes and sizes.count(sizes[0]) == len(sizes) else 0


def _even_bounds(size: int, count: int) -> range:
    return range(0, size * count + 1, size)


def _dealt_bounds(bounds: Sequence[int], places: Sequence[int], counts: list[int]) -> list[Sequence[int]]:
    """The bounds of each place's records, of which there are `counts`."""
    if isinstance(bounds, range):
        return [_even_bounds(bounds.step, count) for count in counts]
    sizes = list(map(sub, islice(bounds, 1, None), bounds))
    return [_summed(dealt) for dealt in _dealt(sizes, places, len(counts))]


def _lengths(items: Sequence[Value]) -> tuple[list[int], bool]:
    """The bytes of each, 0 of a null; are there nulls?"""
    try:
        return list(map(len, items)), False  # type: ignore[arg-type]
    except TypeError:
        return list(map(length_hint, items)), True
