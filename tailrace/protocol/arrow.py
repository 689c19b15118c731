"""Batches as Arrow record batches. The only module here that needs pyarrow; imported when asked for."""

from typing import TYPE_CHECKING, Any

try:
    import numpy as np
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise ImportError('to_arrow() needs pyarrow: pip install "tailrace[arrow]"') from error

from .layout import Span
from .read_columns import BinaryColumn, Columns

if TYPE_CHECKING:
    from .decode import Batch

_HEADER = pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])
_HEADER_LIST = pa.list_(_HEADER)
_NO_HEADERS = pa.array([], _HEADER)
_TIMESTAMP = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", _TIMESTAMP, nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADER_LIST),
    ]
)


def record_batch(batch: "Batch") -> Any:
    """The batch under SCHEMA. Buffers of a native batch are wrapped, not copied."""
    if isinstance(batch.body, Columns):
        columns = _wrapped(batch.body)
    else:
        columns = [
            _int64(np.array(batch.timestamps, np.int64), _TIMESTAMP),
            pa.array(batch.keys, pa.binary()),
            pa.array(batch.values, pa.binary()),
            pa.array(map(_header_dicts, batch.headers), _HEADER_LIST),
        ]
    return pa.record_batch([_offsets(batch), *columns], schema=SCHEMA)


def _offsets(batch: "Batch") -> Any:
    offsets = batch.offsets
    if isinstance(offsets, range):
        return _int64(np.arange(offsets.start, offsets.stop), pa.int64())
    return _int64(np.array(offsets, np.int64), pa.int64())


def _wrapped(columns: Columns) -> list[Any]:
    memory = pa.py_buffer(columns.body)
    count = columns.count
    stamps = columns.layout.timestamps
    if stamps is None or columns.header.log_append_time:
        timestamp = _int64(np.full(count, columns.header.max_timestamp), _TIMESTAMP)
    else:
        timestamp = pa.Array.from_buffers(_TIMESTAMP, count, [None, _slice(memory, stamps)])
    key = columns.key_column
    return [
        timestamp,
        pa.nulls(count, pa.binary()) if key is None else _binary(memory, key, pa.binary()),
        _binary(memory, columns.value_column, pa.binary()),
        _headers(memory, columns),
    ]


def _headers(memory: Any, columns: Columns) -> Any:
    headers, spans = columns.header_columns, columns.layout.headers
    if headers is None or spans is None:
        starts, pairs = pa.py_buffer(bytes(4 * (columns.count + 1))), _NO_HEADERS
    else:
        names, values = headers.names, headers.values
        starts = _slice(memory, spans.counts)
        pairs = pa.StructArray.from_arrays(
            [_binary(memory, names, pa.string()), _binary(memory, values, pa.binary())], fields=list(_HEADER)
        )
    return pa.Array.from_buffers(_HEADER_LIST, columns.count, [None, starts], children=[pairs])


def _binary(memory: Any, column: BinaryColumn, kind: Any) -> Any:
    validity = None if column.validity is None else _slice(memory, column.validity)
    buffers = [validity, _slice(memory, column.offsets), _slice(memory, column.data)]
    return pa.Array.from_buffers(kind, column.count, buffers)


def _slice(memory: Any, span: Span) -> Any:
    return memory.slice(span.start, span.length)


def _int64(numbers: Any, kind: Any) -> Any:
    """An array without nulls over a numpy array's memory."""
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def _header_dicts(headers: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in headers]
