"""Arrays as lists of Python's objects, as serializers get them.

What a column has no value for is None: Arrow's null, pandas' None, NA, NaT, and NaN unless the column is one
of floats. Imported only where there is such an array.
"""

from typing import Any, Final

import numpy as np

from tailrace.protocol.errors import InvalidArgumentError

from .arrays import as_arrow, as_numpy, is_of_pandas

_LISTING: Final = ("tolist", "to_pylist", "to_list")
"""The methods of numpy, Arrow and polars that make Python's own objects."""


def objects_of(name: str, column: Any) -> list[Any]:
    """An object for each item. Raises InvalidArgumentError; TypeError for what has no items."""
    column = as_numpy(column)
    if is_of_pandas(column):
        return _of_pandas(column)
    if hasattr(type(column), "__array_interface__"):
        column = np.asanyarray(column)
        _check_times(name, column)
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


def _check_times(name: str, array: "np.ndarray[Any, Any]") -> None:
    """numpy makes an int of a time that is none of Python's: too fine, or too far away."""
    if array.dtype.kind in "mM" and int in map(type, array.ravel().tolist()):
        kind = array.dtype.kind
        raise InvalidArgumentError(
            f"{name} has {array.dtype}, of which numpy makes bare numbers for a serializer: give"
            f" column.astype('{kind}8[us]')"
        )
