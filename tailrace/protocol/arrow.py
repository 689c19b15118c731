"""Batches as Arrow record batches. The only module here that needs pyarrow; imported when asked for."""

from array import array
from typing import TYPE_CHECKING, Any

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError('to_arrow() needs pyarrow: pip install "tailrace[arrow]"') from error

from .columns import Kind
from .read_columns import BinaryColumn, Columns, Span

if TYPE_CHECKING:
    from .decode import Batch

_HEADER = pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])
_TIMESTAMP = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", _TIMESTAMP, nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(_HEADER)),
    ]
)


def record_batch(batch: "Batch") -> Any:
    """The batch under SCHEMA. Buffers of a native batch are wrapped, not copied."""
    if isinstance(batch.body, Columns):
        columns = _wrapped(batch.body)
    else:
        columns = [
            _int64(batch.timestamps, _TIMESTAMP),
            pa.array(batch.keys, pa.binary()),
            pa.array(batch.values, pa.binary()),
            pa.array(map(_header_dicts, batch.headers), pa.list_(_HEADER)),
        ]
    return pa.record_batch([_int64(batch.offsets, pa.int64()), *columns], schema=SCHEMA)


def _wrapped(columns: Columns) -> list[Any]:
    memory = pa.py_buffer(columns.body)
    count = columns.count
    stamps = columns.spans.get(Kind.TIMESTAMPS)
    if stamps is None or columns.header.log_append_time:
        timestamp = _int64(columns.timestamps(), _TIMESTAMP)
    else:
        timestamp = pa.Array.from_buffers(_TIMESTAMP, count, [None, _buffer(memory, stamps)])
    key = columns.key_column
    return [
        timestamp,
        pa.nulls(count, pa.binary()) if key is None else _binary(memory, key, count, pa.binary()),
        _binary(memory, columns.value_column, count, pa.binary()),
        _headers(memory, columns),
    ]


def _headers(memory: Any, columns: Columns) -> Any:
    if columns.header_columns is None:
        offsets = pa.py_buffer(bytes(4 * (columns.count + 1)))
        return pa.Array.from_buffers(
            pa.list_(_HEADER), columns.count, [None, offsets], children=[pa.array([], _HEADER)]
        )
    counts, names, values = columns.header_columns
    pairs = pa.StructArray.from_arrays(
        [
            _binary(memory, names, names.count, pa.string()),
            _binary(memory, values, values.count, pa.binary()),
        ],
        fields=list(_HEADER),
    )
    return pa.Array.from_buffers(
        pa.list_(_HEADER), columns.count, [None, _buffer(memory, counts)], children=[pairs]
    )


def _binary(memory: Any, column: BinaryColumn, count: int, kind: Any) -> Any:
    validity = None if column.validity is None else _buffer(memory, column.validity)
    buffers = [validity, _buffer(memory, column.offsets), _buffer(memory, column.data)]
    return pa.Array.from_buffers(kind, count, buffers)


def _buffer(memory: Any, span: Span) -> Any:
    return memory.slice(span.start, span.length)


def _int64(numbers: Any, kind: Any) -> Any:
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(array("q", numbers))])


def _header_dicts(headers: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in headers]
