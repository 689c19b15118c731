"""`tailrace produce`: each line of a pipe or a file becomes a record."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from tailrace.protocol.errors import BufferFullError, InvalidRecordError, TailraceError, UnknownPartitionError
from tailrace.protocol.limits import MIB, RECORD_BYTES_MAX

from . import exit_codes
from .connect import waiting_is_told
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json
from .record_format import unescape
from .units import human_bytes, plural

if TYPE_CHECKING:
    from tailrace.producer.producer import Producer

READ_BYTES: Final = MIB

Advance = Callable[[int], None]
"""Told how many bytes of the input are done."""


def _parse_separator(_: click.Context, __: click.Parameter, text: str | None) -> bytes | None:
    if text == "":
        raise click.BadParameter("it is empty; write one such as : or \\t")
    try:
        return None if text is None else unescape(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
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
    file: BinaryIO,
    key: str | None,
    separator: bytes | None,
    partition: int | None,
    compression: str,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Write each line of FILE (default: what is piped in) to TOPIC as one record.

    Returns when everything is acknowledged. Ctrl-C ends the input; what was read is still written.
    """
    from tailrace.producer.producer import Producer

    if key is not None and separator is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    fixed_key = None if key is None else key.encode()
    split = _splitter(fixed_key, separator)
    longest = RECORD_BYTES_MAX - len(fixed_key or b"")
    failure: TailraceError | None = None
    interrupted = False
    with (
        _progress(file) as advance,
        Producer(
            bootstrap_servers,
            compression_type=None if compression == "none" else compression,
            max_block_ms=round(timeout_s * 1000),
            delivery_timeout_ms=round(timeout_s * 1000),
        ) as producer,
    ):
        with waiting_is_told(bootstrap_servers, timeout_s):
            _check_place(producer, topic, partition)
        started = time.monotonic()
        tally = _Tally()
        try:
            for lines in lines_of(file.fileno(), longest, advance):
                values, keys = split(lines)
                producer.send_many(topic, values, keys, partition=partition)
                tally.add(lines)
        except KeyboardInterrupt:
            interrupted = True
        except TailraceError as error:
            failure = error
        try:
            producer.close()
        except TailraceError as error:
            failure = failure or error
        stored = int(producer.metrics()["records_acked"])
    if failure is not None:
        raise TailraceError(f"{_reason(failure, timeout_s)}; {tally.extent(stored)}")
    tally.report(topic, time.monotonic() - started, as_json=as_json)
    return exit_codes.INTERRUPTED if interrupted else exit_codes.OK


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
        return f"nothing more was acknowledged within {timeout_s:g} s (--timeout)"
    return str(failure).replace("delivery_timeout_ms", f"{timeout_s:g} s (--timeout)")


class _Tally:
    def __init__(self) -> None:
        self.records = 0
        self.size = 0

    def add(self, lines: Sequence[bytes]) -> None:
        self.records += len(lines)
        self.size += sum(map(len, lines))

    def extent(self, stored: int) -> str:
        """How far it came before it failed."""
        known = f"{plural(stored, 'record')} known to be stored"
        return f"stopped after {plural(self.records, 'line')}, {known}"

    def report(self, topic: str, seconds: float, *, as_json: bool) -> None:
        if as_json:
            figures = {"records": self.records, "bytes": self.size, "seconds": round(seconds, 3)}
            print_json({"topic": topic, **figures})
        else:
            amount = f"{plural(self.records, 'record')} ({human_bytes(self.size)})"
            click.echo(f"produced {amount} to {topic} in {seconds:.1f} s", err=True)


Columns = tuple[Sequence[bytes], Sequence[bytes | None] | None]
"""Values and keys."""


def _splitter(key: bytes | None, separator: bytes | None) -> Callable[[Sequence[bytes]], Columns]:
    if separator is not None:
        return lambda lines: _split(lines, separator)
    if key is not None:
        return lambda lines: (lines, [key] * len(lines))
    return lambda lines: (lines, None)


def _split(lines: Sequence[bytes], separator: bytes) -> Columns:
    """A line without the separator is a value without a key."""
    parts = [line.partition(separator) for line in lines]
    values = [value if found else line for line, (_, found, value) in zip(lines, parts, strict=True)]
    return values, [key if found else None for key, found, _ in parts]


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


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Advance]:
    """A bar on stderr when that is a terminal and the input is a file, whose size is known."""
    status = os.fstat(file.fileno())
    if not sys.stderr.isatty() or not stat.S_ISREG(status.st_mode):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=status.st_size)
        yield lambda size: progress.advance(task, size)
