"""`tailrace produce`: each line of a pipe or a file becomes a record."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from tailrace.protocol.errors import InvalidRecordError
from tailrace.protocol.limits import MIB, RECORD_BYTES_MAX

from . import exit_codes
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json
from .units import human_bytes, human_count

if TYPE_CHECKING:
    from tailrace.producer.producer import Producer

READ_BYTES: Final = MIB

Advance = Callable[[int], None]
"""Told how many bytes of the input are done."""


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb", lazy=False), default="-")
@click.option("-k", "--key", help="The key of every record.")
@click.option(
    "-K",
    "--key-separator",
    metavar="TEXT",
    help="Each line is a key, this text, and a value; one without it is a value without a key.",
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
    key_separator: str | None,
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

    if key is not None and key_separator is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    split = _splitter(key, key_separator)
    interrupted = False
    started = time.monotonic()
    with (
        _progress(file) as advance,
        Producer(
            bootstrap_servers,
            compression_type=None if compression == "none" else compression,
            max_block_ms=round(timeout_s * 1000),
            delivery_timeout_ms=round(timeout_s * 1000),
        ) as producer,
    ):
        tally = _Tally()
        try:
            for lines in _lines(file.fileno(), advance):
                _send(producer, topic, lines, split, partition)
                tally.add(lines)
        except KeyboardInterrupt:
            interrupted = True
    tally.report(topic, time.monotonic() - started, as_json=as_json)
    return exit_codes.INTERRUPTED if interrupted else exit_codes.OK


class _Tally:
    def __init__(self) -> None:
        self.records = 0
        self.size = 0

    def add(self, lines: Sequence[bytes]) -> None:
        self.records += len(lines)
        self.size += sum(map(len, lines))

    def report(self, topic: str, seconds: float, *, as_json: bool) -> None:
        if as_json:
            figures = {"records": self.records, "bytes": self.size, "seconds": round(seconds, 3)}
            print_json({"topic": topic, **figures})
        else:
            amount = f"{human_count(self.records)} records ({human_bytes(self.size)})"
            click.echo(f"produced {amount} to {topic} in {seconds:.1f} s", err=True)


Columns = tuple[Sequence[bytes], Sequence[bytes | None] | None]
"""Values and keys."""


def _splitter(key: str | None, separator: str | None) -> Callable[[Sequence[bytes]], Columns]:
    if separator is not None:
        return lambda lines: _split(lines, separator.encode())
    if key is not None:
        return lambda lines: (lines, [key.encode()] * len(lines))
    return lambda lines: (lines, None)


def _split(lines: Sequence[bytes], separator: bytes) -> Columns:
    """A line without the separator is a value without a key."""
    parts = [line.partition(separator) for line in lines]
    values = [value if found else line for line, (_, found, value) in zip(lines, parts, strict=True)]
    return values, [key if found else None for key, found, _ in parts]


def _send(
    producer: "Producer",
    topic: str,
    lines: Sequence[bytes],
    split: Callable[[Sequence[bytes]], Columns],
    partition: int | None,
) -> None:
    values, keys = split(lines)
    producer.send_many(topic, values, keys, partition=partition)


def _lines(fd: int, advance: Advance) -> Iterator[Sequence[bytes]]:
    """Whole lines without their ends, as soon as they are there; the last one may lack its end."""
    rest = b""
    while chunk := os.read(fd, READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > RECORD_BYTES_MAX:
            raise InvalidRecordError(
                f"a line is over {RECORD_BYTES_MAX} bytes, the most that a record can be"
            )
        if lines:
            yield lines
        advance(len(chunk))
    if rest:
        yield [rest]


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
