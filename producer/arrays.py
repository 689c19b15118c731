"""Arrays of numpy and of Arrow as columns of records, without an object for each value.

numpy: the first axis counts the records; each is the bytes of its item or row, little endian, in its full
width, with zeros for what pads a structured one. Text (`U`, StringDType) becomes UTF-8, that of StringDType
by an object for each. Keys of `S` end with their last byte that is not zero.
Arrow, pandas' columns, and whatever shows itself as Arrow (`__arrow_c_array__`, `__arrow_c_stream__`):
binary, string, their large, view and dictionary kinds, fixed_size_binary; numbers and times, as the bytes of
numpy's; with nulls.
Imported only where there is such an array, or a list of text that is better off as one.
"""

from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.packed import Flags, Integers, Packed, nulls, packed_items, packed_texts

from .arguments import check_length, check_unnamed, column_of, look_for_seconds

_INT32_MAX: Final = 2**31 - 1
_CHARACTER_BYTES: Final = 4
"""Of numpy's text."""
_NOTHING: Final = np.zeros(0, np.uint8)


def packed_of(name: str, column: Any) -> Packed:
    """A column of keys or values (`name` is "keys" or "values"): an array, or a list of text.

    A view, where an array is laid out as needed. Raises InvalidArgumentError that says what to give instead.
    """
    if isinstance(column, list | tuple):
        return packed_texts(column) or packed_items(column_of(name, column, None))
    column = as_numpy(column)
    if hasattr(type(column), "__array_interface__"):
        return _of_numpy(name, column)
    return _of_arrow(name, as_arrow(name, column))


def is_of_pandas(column: object) -> bool:
    """Is it a Series, an Index, a Categorical, or another of pandas' arrays?"""
    return hasattr(type(column), "isna")


def as_numpy(column: Any) -> Any:
    """A pandas column of floats as numpy's, in which NaN is a number; Arrow would have a null for it.

    Any other column as it is.
    """
    kind = getattr(column, "dtype", None) if is_of_pandas(column) else None
    return column.to_numpy() if isinstance(kind, np.dtype) and kind.kind in "fc" else column


def times_of(column: Any, count: int) -> Integers:
    """`timestamps_ms` from integers, datetime64 or Arrow's timestamps, as int64[count].

    Other units become milliseconds, rounded down. Raises InvalidArgumentError.
    """
    name = "timestamps_ms"
    if not hasattr(type(column), "__array_interface__"):
        column = as_arrow(name, column)
        if column.null_count:
            raise InvalidArgumentError(f"{name} has {column.null_count} nulls; every record has a timestamp")
        column = column.to_numpy(zero_copy_only=False)
    stamps: NDArray[Any] = np.asarray(column)
    if stamps.ndim != 1 or stamps.dtype.kind not in "iuM":
        raise InvalidArgumentError(
            f"{name} is {_shape(stamps)}; it is int64[{count}] in milliseconds since 1970, or datetime64"
        )
    check_length(name, stamps, count)
    if stamps.dtype.kind == "M":
        stamps = stamps.astype("datetime64[ms]")  # NaT becomes the least int64
    elif count:
        look_for_seconds(name, int(stamps[0]))
    found: Integers = np.ascontiguousarray(stamps.astype(np.int64, copy=False))
    if count and np.min(found) < 0:
        at = int(np.flatnonzero(found < 0)[0])
        raise InvalidArgumentError(f"{name}[{at}] is {stamps[at]}; it is in milliseconds since 1970, to 2^63")
    return found


# ----------------------------------------------------------------------- numpy


def _of_numpy(name: str, column: Any) -> Packed:
    if isinstance(column, np.ma.MaskedArray):
        raise InvalidArgumentError(
            f"{name} is a masked array: give column.filled(), or an Arrow array with nulls"
        )
    array = np.asarray(column)
    kind = array.dtype.kind
    if array.ndim == 1 and kind in "UT":
        text = _of_text(array) if kind == "U" else None
        return text or packed_of(name, array.tolist())
    if array.ndim == 0 or array.dtype.hasobject or kind in "UT":
        raise InvalidArgumentError(
            f"{name} is {_shape(array)}: give an array of bytes (S, V, uint8 rows) or of numbers, one item or"
            " row a record; or a list of bytes, column.tolist()"
        )
    width = array.dtype.itemsize * prod(array.shape[1:])
    if not width:
        return Packed(_NOTHING, len(array), 0)
    if array.ndim == 1 and kind == "S" and name == "keys":
        return _of_bytes(array)
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = plain.reshape(-1).view(np.uint8)
    if array.dtype.char in "VgG":
        padding = _padding(name, array.dtype)
        if padding.any():
            data = np.where(padding, np.uint8(0), data.reshape(-1, len(padding))).reshape(-1)
    return Packed(data, len(array), width)


def _padding(name: str, kind: "np.dtype[Any]") -> Flags:
    """Which of an item's bytes are no field's: anything may lie in them.

    Raises InvalidArgumentError for numbers that have other bytes on other machines.
    """
    if kind.char in "gG":
        raise InvalidArgumentError(
            f"{name} is of {kind}, which has other bytes on other machines: give column.astype('f8')"
        )
    if kind.subdtype is not None:
        item, shape = kind.subdtype
        return np.tile(_padding(name, item), prod(shape))
    padding = np.full(kind.itemsize, kind.fields is not None)
    for field, start, *_ in (kind.fields or {}).values():
        padding[start : start + field.itemsize] &= _padding(name, field)
    return padding


def _of_bytes(array: NDArray[Any]) -> Packed:
    """Bytes without the zeros behind them, which are no data for numpy: the keys that `send` would get."""
    count, width = len(array), array.dtype.itemsize
    rows = np.ascontiguousarray(array).view(np.uint8).reshape(count, width)
    if rows[:, -1].all():
        return Packed(rows.reshape(-1), count, width)
    kept, ends = _without_zeros(rows)
    return Packed(kept, count, 0, ends)


def _without_zeros(rows: NDArray[Any]) -> tuple[NDArray[Any], Integers]:
    """What each row has up to its last number that is not zero, and where each ends; 0 comes first."""
    width = rows.shape[1]
    lengths = np.where(rows.any(axis=1), width - (rows[:, ::-1] != 0).argmax(axis=1), 0)
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    whole = ends[-1] == rows.size
    return rows.reshape(-1) if whole else rows[np.arange(width) < lengths[:, None]], ends


def _of_text(array: NDArray[Any]) -> Packed | None:
    """Text of a fixed width as UTF-8, all of it encoded at once; None where each item is to be looked at.

    An item ends with its last character that is not zero, as it does for numpy.
    """
    count, width = len(array), array.dtype.itemsize // _CHARACTER_BYTES
    if not count or not width:
        return None
    codes = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view("<u4").reshape(count, width)
    own, ends = _without_zeros(codes)
    try:
        text = own.tobytes().decode("utf-32-le").encode()
    except UnicodeDecodeError:  # a surrogate, or no character: who looks at each says which
        return None
    if len(text) > len(own):
        after = np.zeros(len(own) + 1, np.int64)
        np.cumsum(1 + (own > 0x7F) + (own > 0x7FF).astype(np.int8) + (own > 0xFFFF), out=after[1:])
        ends = after[ends]
    return Packed(np.frombuffer(text, np.uint8), count, 0, ends)


def _shape(array: NDArray[Any]) -> str:
    return f"a numpy array of {array.dtype} and shape {array.shape}"


# ----------------------------------------------------------------------- Arrow


def as_arrow(name: str, column: Any) -> Any:
    """A pyarrow Array, or a ChunkedArray."""
    check_unnamed(name, column)
    if repr(getattr(column, "dtype", None)) == "Object":  # of polars: Arrow gets addresses of it
        raise InvalidArgumentError(f"{name} is a series of Python objects: give a list, column.to_list()")
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(f'{name} is an Arrow array: pip install "tailrace[arrow]"') from error
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return column
    try:
        if is_of_pandas(column):
            return pa.array(column, from_pandas=True)
        return pa.array(column) if hasattr(column, "__arrow_c_array__") else pa.chunked_array(column)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} is {type(column).__name__}, not a column: {error}") from error


def _of_arrow(name: str, column: Any) -> Packed:
    import pyarrow as pa

    try:
        array = _one_array(_plain(name, column))
    except pa.ArrowException as error:  # a cast that this pyarrow does not know, or memory
        raise InvalidArgumentError(f"{name} is an Arrow array of {column.type}: {error}") from error
    count = len(array)
    if pa.types.is_null(array.type):
        return nulls(count)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        first = array.offset * width
        return Packed(_numbers(array.buffers()[1], np.uint8)[first : first + count * width], count, width)
    if not array.null_count:
        return _between(array, None)
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    flags = np.unpackbits(bits, count=array.offset + count, bitorder="little")
    valid: Flags = flags[array.offset :].view(np.bool_)
    found = _between(array, valid)
    assert found.offsets is not None
    if np.diff(found.offsets)[~valid].any():  # bytes behind a null, which ours must not have
        text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        found = _between(array.fill_null("" if text else b""), valid)
    return found


def _plain(name: str, column: Any) -> Any:
    """The column as one of the kinds that have offsets, or a fixed width without nulls."""
    import pyarrow as pa
    from pyarrow import types

    column = _unviewed(_as_bytes(_looked_up(column)))
    kind = column.type
    if types.is_fixed_size_binary(kind):
        return column.cast(pa.large_binary()) if column.null_count else column
    if types.is_binary(kind) or types.is_string(kind):
        chunks = getattr(column, "num_chunks", 1)
        if chunks > 1 and column.nbytes > _INT32_MAX:  # more than the offsets of one array can count
            return column.cast(pa.large_binary() if types.is_binary(kind) else pa.large_string())
        return column
    if types.is_large_binary(kind) or types.is_large_string(kind) or types.is_null(kind):
        return column
    if types.is_nested(kind):
        instead = f"a serializer takes it, such as {name[:-1]}_serializer='json'"
    elif isinstance(kind, pa.BaseExtensionType):
        instead = f"column.cast(column.type.storage_type) makes {kind.storage_type} of it"
    else:
        instead = "column.cast('string') makes text of it"
    raise InvalidArgumentError(
        f"{name} is an Arrow array of {kind}: give binary, string or numbers; {instead}"
    )


def _looked_up(column: Any) -> Any:
    """Of a dictionary and indexes the value for each index; any other column as it is."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [_unviewed(chunk.dictionary).take(chunk.indices) for chunk in chunks]
    return pa.chunked_array(found, None if found else pa.binary())


def _as_bytes(column: Any) -> Any:
    """Numbers and times as the bytes that they lie in, a boolean as one; any other column as it is."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not pa.types.is_primitive(column.type):
        return column
    return _one_array(column).view(pa.binary(column.type.bit_width // 8))


def _unviewed(column: Any) -> Any:
    """With offsets in place of views; any other column as it is."""
    import pyarrow as pa

    if pa.types.is_binary_view(column.type):
        kind = pa.large_binary()
    elif pa.types.is_string_view(column.type):
        kind = pa.large_string()
    else:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:  # as in pyarrow 17; then by an object for each
        return pa.array(column.to_pylist(), kind)


def _one_array(column: Any) -> Any:
    """Chunks are joined, by a copy if there are several."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        return column
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    )


def _between(array: Any, valid: Flags | None) -> Packed:
    from pyarrow import types

    _, ends, data = array.buffers()
    count = len(array)
    if not count:
        return Packed(_NOTHING, 0, 0)
    large = types.is_large_binary(array.type) or types.is_large_string(array.type)
    offsets = _numbers(ends, np.int64 if large else np.int32)[array.offset : array.offset + count + 1]
    packed = Packed(_numbers(data, np.uint8), count, 0, offsets, valid)
    width = int(offsets[1] - offsets[0])
    if valid is None and width and (np.diff(offsets) == width).all():
        return Packed(packed.own(), count, width)  # without offsets all that follows is cheaper
    return packed


def _numbers(buffer: Any, kind: Any) -> NDArray[Any]:
    return np.zeros(0, kind) if buffer is None or not buffer.size else np.frombuffer(buffer, kind)
