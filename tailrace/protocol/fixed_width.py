"""Columns whose items all have one length, as numpy arrays. Needs numpy; imported when asked for."""

from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ImportError as error:
    raise ImportError('to_numpy() needs numpy: pip install "tailrace[arrow]"') from error

from numpy.typing import NDArray

from .errors import InvalidArgumentError
from .read_columns import BinaryColumn, Columns

if TYPE_CHECKING:
    from .decode import Batch, Column


def array_of(batch: "Batch", dtype: Any, column: "Column") -> NDArray[Any]:
    """A column of the batch, read-only; a view, unless the batch is of Kafka's rows. See `Batch.to_numpy`."""
    if column not in ("value", "key"):
        raise InvalidArgumentError(f"column={column!r}; it is 'value' or 'key'")
    name = f"{column}s"
    if isinstance(batch.body, Columns):
        found = batch.body.key_column if column == "key" else batch.body.value_column
        if found is None:
            raise InvalidArgumentError("no record of the batch has a key")
        item_type = _sized(name, found.has_nulls, _widths(found), dtype)
        return _over(found.body, found.data.start, found.count, item_type)
    items = batch.keys if column == "key" else batch.values
    lengths = [len(item or b"") for item in items]
    item_type = _sized(name, None in items, (min(lengths), max(lengths)), dtype)
    return _over(b"".join(filter(None, items)), 0, len(items), item_type)


def _widths(column: BinaryColumn) -> tuple[int, int]:
    """The lengths of the shortest item and of the longest; a null's is 0."""
    if column.width:
        return column.width, column.width
    lengths = np.diff(np.frombuffer(column.body, "<i4", column.count + 1, column.offsets.start))
    return int(lengths.min()), int(lengths.max())


def _over(memory: bytes, start: int, count: int, item_type: "np.dtype[Any]") -> NDArray[Any]:
    found: NDArray[Any] = np.ndarray((count,), item_type, memory, start)
    return found


def _sized(name: str, has_nulls: bool, widths: tuple[int, int], dtype: Any) -> "np.dtype[Any]":
    """What an item is. Raises InvalidArgumentError if it is not one thing."""
    instead = f"use .{name} or .to_arrow()"
    if has_nulls:
        raise InvalidArgumentError(f"some {name} are null, which numpy cannot hold: {instead}")
    shortest, longest = widths
    if shortest != longest:
        raise InvalidArgumentError(
            f"{name} of {shortest} to {longest} bytes, and an array's items have one length: {instead}"
        )
    try:
        item_type = np.dtype(f"V{longest}" if dtype is None else dtype)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"dtype={dtype!r:.100}: {error}") from None
    if item_type.hasobject or item_type.itemsize != longest:
        raise InvalidArgumentError(
            f"{name} have {longest} bytes each, dtype {item_type} has {item_type.itemsize}: not the same"
        )
    return item_type
