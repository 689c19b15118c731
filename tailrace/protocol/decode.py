"""A batch of either magic, decoded: columns first, records when asked for."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from .batch import MAGIC_COLUMNS, BatchHeader, copy_of, parse_header
from .crc import Buffer
from .read_columns import Columns
from .record import Headers, Record
from .rows import Rows

if TYPE_CHECKING:
    import numpy
    import pyarrow

BytesRecord: TypeAlias = Record[bytes | None, bytes | None]
Column: TypeAlias = Literal["value", "key"]
T = TypeVar("T")


class Body(Protocol):
    """What both kinds of body give: one list a column, the records' order."""

    offsets: Sequence[int]
    """Every record's offset: a range, or a list if there are gaps in them."""

    def values(self) -> list[bytes | None]:
        """Every record's value."""

    def keys(self) -> list[bytes | None]:
        """Every record's key."""

    def timestamps(self) -> list[int]:
        """Every record's timestamp."""

    def headers(self) -> list[Headers]:
        """Every record's headers."""

    def fields(self) -> tuple[Iterable[object], ...]:
        """Timestamps, keys, values and headers, to go through once. What all share has no end."""


def decode(batch: Buffer, *, verify_crc: bool = True, header: BatchHeader | None = None) -> "Batch":
    """Check a whole batch, its CRC and every length and offset in it, and give access to its columns.

    `batch` is copied once. The copy is what is checked and what columns are made of: the memory of `batch`
    may be used for something else as soon as this returns. `header`: what `parse_header` made of it, if it
    was asked before. Without `verify_crc` the rest is checked all the
    same: flipped bits in values go unnoticed, no more. Raises CorruptBatchError; BatchTooLargeError if the
    batch is longer than BATCH_BYTES_MAX.
    """
    if header is None:
        header = parse_header(batch)
    front, body = copy_of(batch, header, verify_crc=verify_crc)
    if header.magic == MAGIC_COLUMNS:
        return Batch(header, Columns(header, front, body))
    return Batch(header, Rows(header, body))


class _Kept(Generic[T]):
    """A column, decoded by the body's method of its name at the first use, and an attribute from then on.

    As `functools.cached_property`, which takes a lock for each (Python 3.11): two threads that begin at once
    decode twice.
    """

    def __set_name__(self, _owner: type["Batch"], name: str) -> None:
        self._name = name

    def __get__(self, batch: "Batch", _owner: type["Batch"]) -> T:
        column: T = getattr(batch.body, self._name)()
        batch.__dict__[self._name] = column
        return column


class Batch:
    """The records of one batch as columns. Each is decoded at its first use and then kept.

    The lists belong to the batch: whoever wants to change one copies it first.
    """

    values = _Kept[list[bytes | None]]()
    """Every record's value."""
    keys = _Kept[list[bytes | None]]()
    """Every record's key."""
    timestamps = _Kept[list[int]]()
    """Every record's timestamp, in milliseconds since 1970."""
    headers = _Kept[list[Headers]]()
    """Every record's headers, a tuple of (name, value) pairs each."""

    def __init__(self, header: BatchHeader, body: Body) -> None:
        self.header = header
        self.base_offset = header.base_offset
        self.count = header.record_count
        self.body = body
        self.offsets = body.offsets
        """Every record's offset: a range, or a list if there are gaps in them."""

    def __len__(self) -> int:
        return self.count

    @property
    def last_offset(self) -> int:
        """The highest offset that belongs to the batch."""
        return self.header.last_offset

    def records(self, topic: str, partition: int) -> list[BytesRecord]:
        """All of it, one object a record."""
        return list(map(Record, repeat(topic), repeat(partition), self.offsets, *self.body.fields()))

    def to_arrow(self) -> "pyarrow.RecordBatch":
        """The records as a `pyarrow.RecordBatch`: a view of this batch's memory where it can be one.

        Columns: offset int64, timestamp in ms UTC, key and value binary, headers as lists of structs.
        Raises ImportError without the extra: `pip install "tailrace[arrow]"`.
        """
        from .arrow import record_batch

        return record_batch(self)

    def to_numpy(
        self, dtype: Any = None, column: Column = "value", start: int = 0
    ) -> "numpy.ndarray[Any, Any]":
        """The values, or the keys, from record `start` on, as a read-only array.

        It is a view of this batch's memory where it can be one. All must have one length and none may be
        null. `dtype` is any of that size ("i8", "S5", a structured one; ("f4", 768) for rows; default:
        `V<length>`, bytes as they are); the shape is [records], or [records, ...] for rows. Raises
        InvalidArgumentError that says why not; ImportError without the extra.
        """
        from .fixed_width import array_of

        return array_of(self, dtype, column, range(start, self.count))
