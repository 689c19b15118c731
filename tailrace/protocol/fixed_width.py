"""Columns whose items all have one length, as numpy arrays. Needs numpy; imported when asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise ImportError('to_numpy() needs numpy: pip install "tailrace[arrow]"') from error

from numpy.typing import NDArray

from .errors import InvalidArgumentError
from .read_columns import Columns

if TYPE_CHECKING:
    from .decode import Batch, Column


def array_of(batch: "Batch", dtype: Any, column: "Column", records: Sequence[int]) -> NDArray[Any]:
    """A column of the batch's `records`, in order, read-only. See `Batch.to_numpy`.

    A view, if they follow each other and all of the batch have one length; never of a batch of Kafka's rows.
    """
    if column not in ("value", "key"):
        raise InvalidArgumentError(f"column={column!r}; it is 'value' or 'key'")
    name = f"{column}s"
    if isinstance(batch.body, Columns):
        found = batch.body.key_column if column == "key" else batch.body.value_column
        if found is None:
            raise InvalidArgumentError("no record of the batch has a key")
        if found.width and not found.has_nulls:
            item_type = _sized(name, False, found.width, found.width, dtype)
            whole = _over(found.body, found.data.start, found.count, item_type)
            return whole[slice(records.start, records.stop) if isinstance(records, range) else records]
    column_items = batch.keys if column == "key" else batch.values
    items = [column_items[index] for index in records]
    lengths = [len(item or b"") for item in items]
    item_type = _sized(name, None in items, min(lengths, default=0), max(lengths, default=0), dtype)
    return _over(b"".join(filter(None, items)), 0, len(items), item_type)


def _over(memory: bytes, start: int, count: int, item_type: "np.dtype[Any]") -> NDArray[Any]:
    found: NDArray[Any] = np.ndarray((count,), item_type, memory, start)
    return found


def _sized(name: str, has_nulls: bool, shortest: int, longest: int, dtype: Any) -> "np.dtype[Any]":
    """What an item is. Raises InvalidArgumentError if it is not one thing."""
    instead = f"use .{name} or .to_arrow()"
    if has_nulls:
        raise InvalidArgumentError(f"some {name} are null, which numpy cannot hold: {instead}")
    if shortest != longest:
        raise InvalidArgumentError(
            f"{name} of {shortest} to {longest} bytes, and an array's items have one length: {instead}"
        )
    try:
        item_type = np.dtype(f"V{longest}" if dtype is None else dtype)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"dtype={dtype!r:.100}: {error}") from None
    if item_type.kind in "mM" and np.datetime_data(item_type)[0] == "generic":
        raise InvalidArgumentError(
            f"dtype={dtype!r:.100} has no unit: give one, such as '{item_type.kind}8[ms]'"
        )
    if item_type.hasobject:
        raise InvalidArgumentError(
            f"dtype {item_type} has no bytes of its own, it refers to objects: {instead}"
        )
    if item_type.itemsize != longest:
        raise InvalidArgumentError(
            f"{name} have {longest} bytes each, dtype {item_type} has {item_type.itemsize}: not the same"
        )
    return item_type
