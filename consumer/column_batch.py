"""What `Consumer.batches()` hands over: the records of one batch as columns."""

from collections.abc import Sequence
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any

from tailrace.client.serializers import Deserializer
from tailrace.protocol.decode import Batch, Column
from tailrace.protocol.record import Headers, Record, TopicPartition

from .decoding import Decoding, deserialize
from .failures import failed_record
from .sift import Rejected, sift

if TYPE_CHECKING:
    import numpy
    import pandas
    import polars
    import pyarrow


class ColumnBatch:
    """Records of one partition that were produced together, one sequence a column.

    Columns are decoded when they are first used, and then kept. `keys` and `values` are what the
    consumer's deserializers make of them (bytes or None without); they raise SerializationError,
    which names the offset, if one refuses.
    """

    def __init__(self, name: TopicPartition, batch: Batch, start: int, decoding: Decoding) -> None:
        self._name = name
        self._batch = batch
        self._start = start
        self._decoding = decoding

    def __len__(self) -> int:
        return self._batch.count - self._start

    def __repr__(self) -> str:
        first, last = self.offsets[0], self.offsets[-1]
        return f"<{type(self).__name__} {self.topic}-{self.partition} offsets {first} to {last}>"

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._name.topic

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self._name.partition

    @cached_property
    def offsets(self) -> Sequence[int]:
        """Every record's offset: a range, or a list if there are gaps in them."""
        return self._batch.offsets[self._start :]

    @cached_property
    def timestamps(self) -> list[int]:
        """Every record's timestamp, in milliseconds since 1970."""
        return self._rest(self._batch.timestamps)

    @cached_property
    def headers(self) -> list[Headers]:
        """Every record's headers, a tuple of (name, value) pairs each."""
        return self._rest(self._batch.headers)

    @cached_property
    def keys(self) -> list[Any]:
        """Every record's key."""
        keys = deserialize(self._decoding.key, self._rest(self._batch.keys))
        if keys.error is not None:
            raise failed_record(self._name, self.offsets[len(keys.items)], "key", keys.error)
        return keys.items

    @cached_property
    def values(self) -> list[Any]:
        """Every record's value."""
        values = deserialize(self._decoding.value, self._rest(self._batch.values))
        if values.error is not None:
            raise failed_record(self._name, self.offsets[len(values.items)], "value", values.error)
        return values.items

    def records(self) -> list[Record[Any, Any]]:
        """The same as records, one object each."""
        columns = (self.offsets, self.timestamps, self.keys, self.values, self.headers)
        return list(map(Record, repeat(self.topic), repeat(self.partition), *columns))

    def sifted(
        self, key: Deserializer | None, value: Deserializer | None
    ) -> tuple["ColumnBatch", list[Rejected]]:
        """What these deserializers make of stored bytes, without the records that they refuse; and those."""
        batch, rejected = sift(self._name, self._batch, self._start, Decoding(key, value))
        return ColumnBatch(self._name, batch, 0, Decoding()), rejected

    def to_arrow(self) -> "pyarrow.RecordBatch":
        """The stored bytes as a `pyarrow.RecordBatch`, without a copy where they can be viewed.

        Columns: offset int64, timestamp in ms UTC, key and value binary, headers as lists of structs.
        Deserializers are not applied. Raises ImportError without the extra: `pip install "tailrace[arrow]"`.
        """
        return self._batch.to_arrow().slice(self._start)

    def to_numpy(self, dtype: Any = None, column: Column = "value") -> "numpy.ndarray[Any, Any]":
        """The stored bytes of the values (or `column="key"`) as a read-only array, without a copy.

        All must have one length, and none may be null. `dtype` is any of that size: "i8", "S5", a structured
        one, or ("f4", 768) for rows; by default `V<length>`, the bytes as they are (`S` hides zeros at an
        item's end). The shape is [records], or [records, ...] for rows. Deserializers are not applied.
        The array stays valid when batch and consumer are gone; it keeps the whole batch in memory.
        Raises InvalidArgumentError that says why not; ImportError without the extra: `pip install
        "tailrace[arrow]"`.
        """
        return self._batch.to_numpy(dtype, column, self._start)

    def to_pandas(self) -> "pandas.DataFrame":
        """`to_arrow()` as a pandas DataFrame whose columns are Arrow's (`pandas.ArrowDtype`): no copies.

        Written with `to_parquet`, it is read again with `pandas.read_parquet(path, dtype_backend="pyarrow")`:
        without that pandas cannot name the type of `headers`.
        Raises ImportError without the extra: `pip install "tailrace[pandas]"`.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ImportError('to_pandas() needs pandas: pip install "tailrace[pandas]"') from error
        frame: pandas.DataFrame = self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)
        return frame

    def to_polars(self) -> "polars.DataFrame":
        """`to_arrow()` as a polars DataFrame. Data is not copied, but for values and keys of up to 12 bytes.

        Raises ImportError without the extra: `pip install "tailrace[polars]"`.
        """
        try:
            import polars
        except ModuleNotFoundError as error:
            raise ImportError('to_polars() needs polars: pip install "tailrace[polars]"') from error
        frame = polars.from_arrow(self.to_arrow(), rechunk=False)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def _rest(self, column: list[Any]) -> list[Any]:
        return column[self._start :] if self._start else column
