"""`tailrace produce`: each line of a pipe or a file becomes a record."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

import click

from tailrace.protocol.errors import BufferFullError, InvalidRecordError, TailraceError, UnknownPartitionError
from tailrace.protocol.limits import RECORD_BYTES_MAX
from tailrace.protocol.text import plural

from . import exit_codes
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json, progress_console, say
from .record_format import unescape
from .record_input import (
    Advance,
    Columns,
    CsvFormat,
    LineFormat,
    is_gzipped,
    records_of_csv,
    records_of_lines,
)
from .topic_names import complete_topics
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.producer.producer import Producer


ConstantHeaders = tuple[tuple[str, bytes], ...]
Source = Callable[[Advance], Iterator[Columns]]
"""Records as they come, told how far the input is read."""


def _parse_separator(_: click.Context, __: click.Parameter, text: str | None) -> bytes | None:
    if text == "":
        raise click.BadParameter("it is empty; write one such as : or \\t")
    try:
        return None if text is None else unescape(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_headers(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> ConstantHeaders:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r}: write NAME=VALUE")
    parts = (pair.partition("=") for pair in pairs)
    return tuple((name, value.encode()) for name, _, value in parts)


@click.command()
@click.argument("topic", shell_complete=complete_topics)
@click.argument("files", type=click.File("rb", lazy=False), nargs=-1, metavar="[FILE...]")
@click.option("-k", "--key", help="The key of every record.")
@click.option(
    "-K",
    "--key-separator",
    "separator",
    callback=_parse_separator,
    metavar="TEXT",
    help=r"Each line is a key, this text (escapes such as \t are known), and a value; a line without it is "
    "a value without a key.",
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_headers,
    help="A header of every record; may be repeated.",
)
@click.option(
    "--headers",
    "parse_headers",
    is_flag=True,
    help=r"Each line begins with name=value,name=value and a tab, as `consume -f '%h\t%s\n'` prints it; "
    "name:value is taken, too.",
)
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="FILE is CSV (also gzipped) with names in its first line; each row becomes a JSON object.",
)
@click.option("--key-column", metavar="NAME", help="With --csv: the column that is the key.")
@click.option("--value-column", metavar="NAME", help="With --csv: the column that is the value, as text.")
@click.option(
    "--timestamp-column", metavar="NAME", help="With --csv: the time, as ISO 8601 (UTC) or in milliseconds."
)
@click.option("--delimiter", metavar="CHARACTER", help="With --csv: what separates columns; default a comma.")
@click.option("-p", "--partition", type=click.IntRange(min=0), help="The partition of every record.")
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
    help="How batches are stored and sent.",
)
@bootstrap_option
@timeout_option
@json_option
def produce(
    *,
    topic: str,
    files: Sequence[BinaryIO],
    key: str | None,
    separator: bytes | None,
    headers: ConstantHeaders,
    parse_headers: bool,
    as_csv: bool,
    key_column: str | None,
    value_column: str | None,
    timestamp_column: str | None,
    delimiter: str | None,
    partition: int | None,
    compression: str,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Write each line, or row of CSV, of FILEs (default: what is piped in) to TOPIC as one record.

    Files are read one after the other; each CSV file begins with its columns' names. Returns when everything
    is acknowledged. Ctrl-C ends the input; what was read is still written.
    """
    from tailrace.producer.producer import Producer

    files = files or [sys.stdin.buffer]
    if as_csv:
        if key is not None or separator is not None or parse_headers:
            raise click.UsageError("--key, --key-separator and --headers are for lines; CSV has columns")
        rows_of = _csv_source(key_column, value_column, timestamp_column, headers, delimiter=delimiter)
        sources = [_named(rows_of(file), file) for file in files]
    else:
        if any(option is not None for option in (key_column, value_column, timestamp_column, delimiter)):
            raise click.UsageError("columns and delimiters are those of a CSV file: add --csv")
        lines_of = _line_source(key, separator, headers, parse_headers=parse_headers)
        sources = [_named(lines_of(file), file) for file in files]
    tally = _Tally()
    with (
        _progress(files) as advance,
        Producer(
            bootstrap_servers,
            compression_type=None if compression == "none" else compression,
            max_block_ms=round(timeout_s * 1000),
            delivery_timeout_ms=round(timeout_s * 1000),
        ) as producer,
    ):
        _check_place(producer, topic, partition)
        started = time.monotonic()
        records = chain.from_iterable(source(advance) for source in sources)
        failure = _send_all(producer, topic, records, partition, tally)
        try:
            producer.close()
        except TailraceError as error:
            failure = failure or error
        stored = int(producer.metrics()["records_acked"])
    if failure is not None:
        raise TailraceError(f"{_reason(failure, timeout_s)}; {tally.extent(stored)}")
    tally.report(topic, time.monotonic() - started, as_json=as_json)
    return exit_codes.INTERRUPTED if tally.interrupted else exit_codes.OK


def _send_all(
    producer: "Producer", topic: str, records: Iterator[Columns], partition: int | None, tally: "_Tally"
) -> TailraceError | None:
    """What ended it before the end of the input, unless that was Ctrl-C."""
    try:
        for columns in records:
            _send(producer, topic, columns, partition)
            tally.add(columns)
    except KeyboardInterrupt:
        tally.interrupted = True
    except TailraceError as error:
        return error
    except click.UsageError as error:  # of a column that a file has not got
        if not tally.records:
            raise
        return InvalidRecordError(error.message)
    return None


def _send(producer: "Producer", topic: str, columns: Columns, partition: int | None) -> None:
    values, keys, headers, times = columns.values, columns.keys, columns.headers, columns.timestamps
    producer.send_many(topic, values, keys, headers=headers, partition=partition, timestamps_ms=times)


def _check_place(producer: "Producer", topic: str, partition: int | None) -> None:
    """Before any input is asked for: what is misspelt fails at once."""
    partitions = producer.partitions_for(topic)
    if partition is not None and partition not in partitions:
        raise UnknownPartitionError(
            f"topic {topic!r} has {plural(len(partitions), 'partition')}, numbered from 0: "
            f"there is no {partition}"
        )


def _reason(failure: TailraceError, timeout_s: float) -> str:
    """The failure in the words of this command, whose one option for times is `--timeout`."""
    if isinstance(failure, BufferFullError):
        cause = f": {failure.__cause__}" if failure.__cause__ is not None else ""
        return f"nothing more was acknowledged within {timeout_s:g} s (--timeout){cause}"
    return str(failure).replace("delivery_timeout_ms", f"{timeout_s:g} s (--timeout)")


class _Tally:
    def __init__(self) -> None:
        self.records = 0
        self.size = 0
        self.interrupted = False

    def add(self, columns: Columns) -> None:
        self.records += len(columns.values)
        self.size += columns.size

    def extent(self, stored: int) -> str:
        """How far it came before it failed."""
        known = f"{plural(stored, 'record')} known to be stored"
        return f"stopped after {plural(self.records, 'record')}, {known}"

    def report(self, topic: str, seconds: float, *, as_json: bool) -> None:
        if as_json:
            figures = {"records": self.records, "bytes": self.size, "seconds": round(seconds, 3)}
            print_json({"topic": topic, **figures})
        else:
            amount = f"{plural(self.records, 'record')} ({human_bytes(self.size)})"
            say(f"produced {amount} to {topic} in {seconds:.1f} s")


def _named(source: Source, file: BinaryIO) -> Source:
    """What is wrong with the input is said with the file's name."""
    name = "stdin" if file.name == "<stdin>" else file.name

    def records(advance: Advance) -> Iterator[Columns]:
        try:
            yield from source(advance)
        except InvalidRecordError as error:
            raise InvalidRecordError(f"{name}: {error}") from error
        except click.UsageError as error:
            raise click.UsageError(f"{name}: {error.message}") from error

    return records


def _line_source(
    key: str | None, separator: bytes | None, headers: ConstantHeaders, *, parse_headers: bool
) -> Callable[[BinaryIO], Source]:
    if key is not None and separator is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    form = LineFormat(None if key is None else key.encode(), separator, headers, parse_headers)
    taken = sum(len(name) + len(value) for name, value in headers) + len(form.key or b"")

    def source(file: BinaryIO) -> Source:
        if is_gzipped(file.fileno()):
            raise click.UsageError(
                f"{file.name} is gzipped: unpack it (zcat {file.name} | tailrace produce ...)"
            )
        return lambda advance: records_of_lines(file.fileno(), RECORD_BYTES_MAX - taken, advance, form)

    return source


def _csv_source(
    key_column: str | None,
    value_column: str | None,
    timestamp_column: str | None,
    headers: ConstantHeaders,
    *,
    delimiter: str | None,
) -> Callable[[BinaryIO], Source]:
    if delimiter is not None and len(delimiter) != 1:
        raise click.UsageError("--delimiter is one character")
    form = CsvFormat(delimiter or ",", key_column, value_column, timestamp_column, headers)
    return lambda file: lambda advance: records_of_csv(file, advance, form)


@contextmanager
def _progress(files: Sequence[BinaryIO]) -> Iterator[Advance]:
    """A bar on stderr when that is a terminal and the input is files, whose size is known."""
    found = [os.fstat(file.fileno()) for file in files]
    if not sys.stderr.isatty() or not all(stat.S_ISREG(each.st_mode) for each in found):
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=progress_console(), transient=True) as progress:
        task = progress.add_task("", total=sum(each.st_size for each in found))
        yield lambda size: progress.advance(task, size)
