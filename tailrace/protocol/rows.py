"""The rows of a magic 2 batch: Kafka's own record encoding. Reading.

    records := record{record count of the header}
    record  := length varint, attributes i8, timestamp delta varint, offset delta varint,
               key length varint, key, value length varint, value, header count varint, header{header count}
    header  := key length varint, key (UTF-8), value length varint, value

Varints are zigzag, the least significant seven bits first, at most ten bytes; a length counts the bytes
that follow it, and -1 stands for null. Offset deltas ascend; a compacted batch may lack any of them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from .batch import INT64_MAX, BatchHeader
from .compression import Compression, decompress_rows
from .errors import CorruptBatchError
from .limits import BATCH_HEADERS_MAX
from .record import Headers

_VARINT_BITS_MAX: Final = 63


class Rows:
    """The records of one batch, read into columns."""

    def __init__(self, header: BatchHeader, body: bytes) -> None:
        self._values: list[bytes | None] = []
        self._keys: list[bytes | None] = []
        self._timestamp_deltas: list[int] = []
        self._deltas: list[int] = []
        self._headers: list[Headers] = []
        self._header_room = BATCH_HEADERS_MAX
        if header.compression is not Compression.NONE:
            body = decompress_rows(header.compression, body)
        try:
            self._read(body, header.record_count)
        except IndexError:
            raise CorruptBatchError("a row is cut off") from None
        except UnicodeDecodeError as error:
            raise CorruptBatchError(f"header key: {error}") from None
        _check_deltas(self._deltas, header.last_offset_delta)
        self.offsets: Sequence[int] = list(map(header.base_offset.__add__, self._deltas))
        self._timestamps = _timestamps(self._timestamp_deltas, header)

    def values(self) -> list[bytes | None]:
        """Every record's value."""
        return self._values

    def keys(self) -> list[bytes | None]:
        """Every record's key."""
        return self._keys

    def timestamps(self) -> list[int]:
        """Every record's timestamp."""
        return self._timestamps

    def headers(self) -> list[Headers]:
        """Every record's headers."""
        return self._headers

    def fields(self) -> tuple[Iterable[object], ...]:
        """Timestamps, keys, values and headers, to go through once."""
        return self._timestamps, self._keys, self._values, self._headers

    def _read(self, body: bytes, count: int) -> None:
        at = 0
        for _ in range(count):
            length, at = _varint(body, at)
            end = at + length
            if length < 0 or end > len(body):
                raise CorruptBatchError(f"a row of {length} bytes where {len(body) - at} are left")
            at = self._read_row(body, at + 1, end)
            if at != end:
                raise CorruptBatchError(f"a row of {length} bytes ends {at - end} bytes off")
        if at != len(body):
            raise CorruptBatchError(f"{len(body) - at} bytes after the last row")

    def _read_row(self, body: bytes, at: int, end: int) -> int:
        timestamp_delta, at = _varint(body, at)
        offset_delta, at = _varint(body, at)
        key, at = _nullable(body, at, end)
        value, at = _nullable(body, at, end)
        header_count, at = _varint(body, at)
        headers: Headers = ()
        if header_count:
            headers, at = self._read_headers(body, at, end, header_count)
        self._timestamp_deltas.append(timestamp_delta)
        self._deltas.append(offset_delta)
        self._keys.append(key)
        self._values.append(value)
        self._headers.append(headers)
        return at

    def _read_headers(self, body: bytes, at: int, end: int, count: int) -> tuple[Headers, int]:
        self._header_room -= count
        if count < 0 or self._header_room < 0:
            raise CorruptBatchError(f"{count} headers in a row, at most {BATCH_HEADERS_MAX} a batch")
        headers = []
        for _ in range(count):
            key, at = _nullable(body, at, end)
            if key is None:
                raise CorruptBatchError("a header without a key")
            value, at = _nullable(body, at, end)
            headers.append((key.decode(), value))
        return tuple(headers), at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place after it. Raises IndexError at the end of the body."""
    byte = body[at]
    at += 1
    number = byte & 0x7F
    shift = 7
    while byte & 0x80:
        if shift > _VARINT_BITS_MAX:
            raise CorruptBatchError("a varint of more than ten bytes")
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at


def _nullable(body: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint(body, at)
    if length == -1:
        return None, at
    stop = at + length
    if length < 0 or stop > end:
        raise CorruptBatchError(f"a field of {length} bytes where {end - at} are left")
    return body[at:stop], stop


def _check_deltas(deltas: list[int], last: int) -> None:
    if deltas[0] < 0 or deltas[-1] > last or len(set(deltas)) != len(deltas) or sorted(deltas) != deltas:
        raise CorruptBatchError(f"offset deltas do not ascend within 0..{last}")


def _timestamps(deltas: list[int], header: BatchHeader) -> list[int]:
    if header.log_append_time:
        return [header.max_timestamp] * len(deltas)
    timestamps = list(map(header.base_timestamp.__add__, deltas))
    if max(timestamps) > INT64_MAX or min(timestamps) < -INT64_MAX - 1:
        raise CorruptBatchError("a timestamp is no int64")
    return timestamps
