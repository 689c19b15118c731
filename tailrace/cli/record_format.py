"""How `consume` prints a record: kcat's format strings, JSON, or the value alone.

%t topic    %p partition   %o offset      %T timestamp in ms   %h headers as name=value,...
%k key      %K key length  %s value       %S value length (-1 for null)   %% a percent sign
and the escapes \\n \\r \\t \\0 \\\\ \\xNN
"""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tailrace.protocol.record import Record

if TYPE_CHECKING:
    from tailrace.consumer.column_batch import ColumnBatch

BytesRecord = Record[bytes | None, bytes | None]
BatchFormat = Callable[["ColumnBatch", int], bytes]
"""What to print of the first so many records of a batch."""

_TOKEN: Final = re.compile(r"%(.?)|\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_ESCAPES: Final = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", "\\": b"\\"}


def _length(data: bytes | None) -> bytes:
    return b"-1" if data is None else b"%d" % len(data)


def _headers(record: BytesRecord) -> bytes:
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in record.headers)


_FIELDS: Final[dict[str, Callable[[BytesRecord], bytes]]] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "T": lambda record: b"%d" % record.timestamp,
    "k": lambda record: record.key or b"",
    "K": lambda record: _length(record.key),
    "s": lambda record: record.value or b"",
    "S": lambda record: _length(record.value),
    "h": _headers,
}


def values_only(batch: "ColumnBatch", count: int) -> bytes:
    """Each value and a newline; a null is an empty line."""
    values = batch.values[:count]
    if None in values:
        values = [value or b"" for value in values]
    return b"\n".join(values) + b"\n"


def json_lines(batch: "ColumnBatch", count: int) -> bytes:
    """Each record as one line of JSON. Bytes that are no UTF-8 are in `key_hex` and `value_hex`."""
    fields = map(_fields, batch.records()[:count])
    return "".join(
        f"{json.dumps(each, ensure_ascii=False, separators=(',', ':'))}\n" for each in fields
    ).encode()


def format_string(text: str) -> BatchFormat:
    """The printer of a format string. Raises ValueError for one that kcat would not know either."""
    parts = _compile(text)

    def printed(batch: "ColumnBatch", count: int) -> bytes:
        return b"".join(part(record) for record in batch.records()[:count] for part in parts)

    return printed


def unescape(text: str) -> bytes:
    """The bytes of a text with the escapes of a format string. Raises ValueError for an unknown one."""
    data = b""
    place = 0
    for token in _ESCAPE.finditer(text):
        data += text[place : token.start()].encode() + _escape(token.group(1))
        place = token.end()
    return data + text[place:].encode()


def _compile(text: str) -> list[Callable[[BytesRecord], bytes]]:
    parts: list[Callable[[BytesRecord], bytes]] = []
    literal = b""
    place = 0
    for token in _TOKEN.finditer(text):
        literal += text[place : token.start()].encode()
        place = token.end()
        field, escape = token.groups()
        if field is None:
            literal += _escape(escape)
        elif field == "%":
            literal += b"%"
        else:
            if field not in _FIELDS:
                raise ValueError(f"unknown format {'%' + field!r}; known are %{', %'.join(_FIELDS)} and %%")
            parts += [_constant(literal), _FIELDS[field]]
            literal = b""
    return [*parts, _constant(literal + text[place:].encode())]


def _escape(text: str) -> bytes:
    if text.startswith("x") and len(text) == 3:
        return bytes.fromhex(text[1:])
    if text not in _ESCAPES:
        raise ValueError(f"unknown escape {chr(92) + text!r}; known are \\n, \\r, \\t, \\0, \\\\ and \\xNN")
    return _ESCAPES[text]


def _constant(data: bytes) -> Callable[[BytesRecord], bytes]:
    return lambda _: data


def _fields(record: BytesRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **_text("key", record.key),
        **_text("value", record.value),
    }
    if record.headers:
        fields["headers"] = [{"name": name, **_text("value", value)} for name, value in record.headers]
    return fields


def _text(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_hex": data.hex()}
