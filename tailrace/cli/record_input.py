"""What `produce` reads: lines or CSV, as columns of records, as soon as they are there."""

import csv
import gzip
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any, BinaryIO, Final, NamedTuple

import click
import msgspec

from tailrace.client.arguments import INT64_MAX
from tailrace.protocol.errors import InvalidRecordError
from tailrace.protocol.limits import HEADERS_PER_RECORD_MAX, MIB, RECORD_BYTES_MAX
from tailrace.protocol.record import Headers

READ_BYTES: Final = MIB
ROWS_A_SEND: Final = 5_000
_NO_UTF8: Final = "there are bytes that are no UTF-8"
_GZIP: Final = b"\x1f\x8b"
_HEADER: Final = re.compile(b"[=:]")
"""Behind a header's name: as `consume` prints it, or as Kafka's console producer takes it."""

Advance = Callable[[int], None]
"""Told how many bytes of the input are done."""


class Columns(NamedTuple):
    """Records that are sent together; `size` is how many bytes of values and keys they have."""

    values: Sequence[bytes]
    keys: Sequence[bytes | None] | None
    size: int
    headers: Sequence[Headers] | None = None
    timestamps: Sequence[int] | None = None


# ------------------------------------------------------------------------ lines


@dataclass(frozen=True)
class LineFormat:
    """How a line is taken apart: headers, a tab, a key, the separator, a value; or some of these."""

    key: bytes | None
    separator: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    parse_headers: bool


def is_gzipped(fd: int) -> bool:
    """Is it a file of compressed bytes? A pipe is taken as it is."""
    return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(_GZIP), 0) == _GZIP


def records_of_lines(fd: int, longest: int, advance: Advance, form: LineFormat) -> Iterator[Columns]:
    """Raises InvalidRecordError, after the records before it, for a line that does not fit."""
    number = 0
    for lines in lines_of(fd, longest, advance):
        size = sum(map(len, lines))
        headers: list[Headers] | None = None
        if form.parse_headers:
            whole, lines = lines, []
            headers = []
            try:
                for line in whole:
                    found, line = _headers(line, number + len(lines) + 1)
                    headers.append([*form.headers, *found])
                    lines.append(line)
            except InvalidRecordError:
                yield _columns(lines, form, sum(map(len, whole[: len(lines)])), headers)
                raise
        elif form.headers:
            headers = [form.headers] * len(lines)
        number += len(lines)
        yield _columns(lines, form, size, headers)


def _columns(
    lines: Sequence[bytes], form: LineFormat, size: int, headers: Sequence[Headers] | None
) -> Columns:
    if form.separator is not None:
        parts = [line.partition(form.separator) for line in lines]
        # A line without the separator is a value without a key.
        values = [value if found else line for line, (_, found, value) in zip(lines, parts, strict=True)]
        return Columns(values, [key if found else None for key, found, _ in parts], size, headers)
    keys = None if form.key is None else [form.key] * len(lines)
    return Columns(lines, keys, size, headers)


def _headers(line: bytes, number: int) -> tuple[list[tuple[str, bytes]], bytes]:
    text, tab, rest = line.partition(b"\t")
    try:
        pairs = [_HEADER.split(pair, 1) for pair in text.split(b",")] if text else []
        if not tab or any(len(pair) != 2 for pair in pairs) or len(pairs) > HEADERS_PER_RECORD_MAX:
            raise ValueError
        return [(name.decode(), value) for name, value in pairs], rest
    except ValueError:
        raise InvalidRecordError(
            f"line {number:,} does not begin with headers and a tab: write name=value,name=value<TAB>..., "
            "or only the tab for none"
        ) from None


def lines_of(fd: int, longest: int, advance: Advance) -> Iterator[Sequence[bytes]]:
    """Whole lines without their ends, as soon as they are there; the last one may lack its end.

    Raises InvalidRecordError, after the lines before it, for one of over `longest` bytes.
    """
    rest = b""
    count = 0
    while chunk := os.read(fd, READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if max(map(len, lines), default=0) > longest:
            short = list(takewhile(lambda line: len(line) <= longest, lines))
            yield short
            raise _too_long(count + len(short) + 1, f"{len(lines[len(short)]):,}", longest)
        if lines:
            yield lines
        count += len(lines)
        if len(rest) > longest:
            raise _too_long(count + 1, f"over {len(rest):,}", longest)
        advance(len(chunk))
    if rest:
        yield [rest]


def _too_long(number: int, size: str, longest: int) -> InvalidRecordError:
    return InvalidRecordError(f"line {number:,} is too long: {size} bytes, at most {longest:,} are possible")


# -------------------------------------------------------------------------- CSV


@dataclass(frozen=True)
class CsvFormat:
    """Which columns of a CSV file become what. Without `value_column` a value is the row as JSON."""

    delimiter: str
    key_column: str | None
    value_column: str | None
    timestamp_column: str | None
    headers: tuple[tuple[str, bytes], ...]


class _Counted(io.RawIOBase):
    """A file that tells how far it is read."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.readv(self._file.fileno(), [buffer])
        self._advance(count)
        return count


def records_of_csv(file: BinaryIO, advance: Advance, form: CsvFormat) -> Iterator[Columns]:
    """A record for each row below the line with the names; the file may be gzipped.

    Raises click.UsageError for a column that is not there, and InvalidRecordError with the line, after
    the records before it, for a row that does not fit.
    """
    raw = io.BufferedReader(_Counted(file, advance), READ_BYTES)
    plain: Any = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP else raw
    # What is no UTF-8 is refused where its row is: it is decoded long before that.
    text = io.TextIOWrapper(plain, "utf-8-sig", "surrogateescape", newline="")
    csv.field_size_limit(RECORD_BYTES_MAX)
    reader = csv.reader(text, delimiter=form.delimiter, strict=True)
    try:
        rows = _Rows(reader, form)
    except (csv.Error, ValueError, EOFError, OSError) as error:
        raise InvalidRecordError(f"line 1, which is to name the columns: {error}") from error
    while True:
        columns, more = rows.take()
        if columns.values:
            yield columns
        if rows.failure is not None:
            raise rows.failure
        if not more:
            return


class _Rows:
    def __init__(self, reader: Any, form: CsvFormat) -> None:
        self._reader = reader
        self._names: list[str] = next(reader, [])
        if not _is_utf8("".join(self._names)):
            raise ValueError(_NO_UTF8)
        twice = [name for name, times in Counter(self._names).items() if times > 1]
        if twice:
            raise click.UsageError(f"the first line names {', '.join(map(repr, twice))} more than once")
        self._headers = form.headers
        self._key = self._place("--key-column", form.key_column)
        self._value = self._place("--value-column", form.value_column)
        self._time = self._place("--timestamp-column", form.timestamp_column)
        self.failure: InvalidRecordError | None = None
        self._read = 0

    def take(self) -> tuple[Columns, bool]:
        """The next records, and whether there may be more. `failure`: what the row behind them is."""
        names, encode = self._names, msgspec.json.encode
        values: list[bytes] = []
        keys: list[bytes] = []
        times: list[int] = []
        try:
            for row in islice(self._reader, ROWS_A_SEND):
                if not row:
                    continue  # an empty line
                self._check(row)
                moment = None if self._time is None else self._moment(row[self._time])
                key = None if self._key is None else row[self._key].encode()
                values.append(
                    encode(dict(zip(names, row, strict=True)))
                    if self._value is None
                    else row[self._value].encode()
                )
                if key is not None:
                    keys.append(key)
                if moment is not None:
                    times.append(moment)
            more = self._reader.line_num > self._read
            self._read = self._reader.line_num
        except InvalidRecordError as error:
            self.failure, more = error, False
        except UnicodeEncodeError:
            self.failure, more = self._refused(_NO_UTF8), False
        except (csv.Error, ValueError, EOFError, OSError) as error:
            self.failure = InvalidRecordError(f"behind line {self._reader.line_num:,}: {error}")
            more = False
        size = sum(map(len, values)) + sum(map(len, keys))
        headers = [self._headers] * len(values) if self._headers else None
        return Columns(values, keys or None, size, headers, times or None), more

    def _check(self, row: list[str]) -> None:
        if len(row) != len(self._names):
            raise self._refused(f"{len(row)} columns, and the first line names {len(self._names)}")

    def _moment(self, text: str) -> int:
        moment = _milliseconds(text)
        if moment is None:
            assert self._time is not None
            what = f"{text!r} in column {self._names[self._time]!r} is no time since 1970: write ISO 8601"
            raise self._refused(f"{what}, or milliseconds")
        return moment

    def _refused(self, what: str) -> InvalidRecordError:
        return InvalidRecordError(f"the row that ends in line {self._reader.line_num:,}: {what}")

    def _place(self, option: str, column: str | None) -> int | None:
        if column is None:
            return None
        if column not in self._names:
            raise click.UsageError(
                f"{option}: there is no column {column!r}; there are {', '.join(self._names)}"
            )
        return self._names.index(column)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=10_000)
def _milliseconds(text: str) -> int | None:
    """Of ISO 8601 (UTC where no zone is given), or of milliseconds; None for anything else."""
    if text.isascii() and text.isdecimal():
        return number if (number := int(text)) <= INT64_MAX else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    milliseconds = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    return milliseconds if milliseconds >= 0 else None
