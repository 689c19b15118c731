"""Arrays as lists of Python's objects, as serializers get them.

What a column has no value for is None: Arrow's null, pandas' None, NA, NaT, and NaN unless the column is one
of floats. Imported only where there is such an array.
"""

from collections.abc import Iterable
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np

from tailrace.protocol.errors import InvalidArgumentError

from .arrays import as_arrow, as_numpy, is_of_pandas

_LISTING: Final = ("to_pylist", "to_list")
"""The methods of Arrow and polars that make Python's own objects."""


def objects_of(name: str, column: Any) -> list[Any]:
    """An object for each item. Raises InvalidArgumentError; TypeError for what has no items."""
    column = as_numpy(column)
    if is_of_pandas(column):
        return _of_pandas(column)
    if hasattr(type(column), "__array_interface__"):
        return _of_numpy(name, np.asanyarray(column))
    for method in _LISTING:
        if hasattr(column, method):
            return list(getattr(column, method)())
    found: list[Any] = as_arrow(name, column).to_pylist()
    return found


def _of_pandas(column: Any) -> list[Any]:
    import pandas

    items = column.tolist()
    missing = pandas.Series(items, dtype=object).isna()
    return [None if absent else item for item, absent in zip(items, missing, strict=True)]


def _of_numpy(name: str, array: "np.ndarray[Any, Any]") -> list[Any]:
    rows: list[Any] = array.tolist()
    items: Iterable[Any] = rows
    for _ in range(array.ndim - 1):
        items = chain.from_iterable(items)
    bare = _bare_times(array.dtype, items)
    if bare is not None:
        field, kind = bare
        wanted = f"{kind.kind}8[us]"
        instead = f"{wanted} in that field" if field else f"column.astype('{wanted}')"
        raise InvalidArgumentError(
            f"{name}{field} has {kind}, of which numpy makes bare numbers for a serializer: give {instead}"
        )
    return list(rows)


def _bare_times(kind: "np.dtype[Any]", items: Iterable[Any]) -> tuple[str, "np.dtype[Any]"] | None:
    """Where numpy has made an int of a time that is none of Python's: too fine, or too far away.

    That is the field, as `['at']`, or "" for the items themselves, and what it holds.
    """
    if kind.kind in "mM":
        return ("", kind) if int in map(type, items) else None
    rows = list(items) if kind.names else []
    for place, field in enumerate(kind.names or ()):
        bare = _bare_times(kind[field], map(itemgetter(place), rows))
        if bare is not None:
            return f"[{field!r}]{bare[0]}", bare[1]
    return None
