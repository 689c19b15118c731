"""How commands print: JSON lines for programs, aligned columns for people."""

import errno
import io
import json
import os
import resource
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import click

if TYPE_CHECKING:
    from rich.console import Console

LOOK_AT_READER_MS: Final = 1_000
"""How often who has nothing to print looks whether anybody would still read it."""

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_GAP: Final = "  "


def print_json(fields: Mapping[str, object]) -> None:
    """One object as one line, at once also into a pipe."""
    click.echo(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def check_reader() -> None:
    """Raise BrokenPipeError when nobody reads stdout any more, as a write would."""
    poll = select.poll()
    poll.register(STDOUT, 0)  # errors are always reported
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def open_standard_streams() -> None:
    """Those that are closed (`>&-`) become /dev/null: else the next file or socket would be one of them."""
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(STDIN, closefd=False)
    sys.stdout = _buffered(sys.stdout or os.fdopen(STDOUT, "w", closefd=False))
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w", closefd=False)


def _buffered(stream: TextIO) -> TextIO:
    """With a buffer, which goes on where a write fell short, or says that it could not.

    An unbuffered one (PYTHONUNBUFFERED, `python -u`) loses the rest without a word: at the end of a disk, in
    a pipe that does not block, in one that is full when the process is suspended.
    """
    if not isinstance(stream.buffer, io.RawIOBase):
        return stream
    buffer = io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True)


def say(text: str, *, newline: bool = True) -> None:
    """Tell on stderr. That nobody takes it is no reason to end."""
    with saying():
        click.echo(text, err=True, nl=newline)


@contextmanager
def saying(stream: TextIO | None = None) -> Iterator[None]:
    """As `say`, for what writes to stderr itself, and does nothing else that raises OSError."""
    try:
        yield
    except OSError:
        drop_buffered(stream or sys.stderr)


class Teller:
    """stderr for those who write to it all the time, such as a progress bar: it raises no OSError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As that of a TextIO."""
        with saying(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As that of a TextIO."""
        with saying(self._stream):
            self._stream.flush()


def progress_console() -> "Console":
    """Where bars and tables are drawn on stderr."""
    from rich.console import Console

    return Console(file=cast(TextIO, Teller(sys.stderr)))


def drop_buffered(stream: TextIO) -> None:
    """What it could not write is lost, and not tried again; what is told later may find its way."""
    fd = stream.fileno()
    kept = os.dup(fd)
    try:
        _to_devnull(fd)
        stream.flush()
    finally:
        os.dup2(kept, fd)
        os.close(kept)


def discard_stdout() -> None:
    """Nobody takes it any more: let nothing that is still buffered, or said later, raise for that."""
    _to_devnull(sys.stdout.fileno())


def _to_devnull(fd: int) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, fd)
    os.close(devnull)


def os_error_text(error: OSError) -> str:
    """What the system said, without its number: `data/x: permission denied`."""
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.EMFILE:
        reason += f": no more than {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} at a time (ulimit -n)"
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as needed; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [all(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)] or [
        False
    ] * len(headers)
    for line in (headers, *cells):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo(_GAP.join(padded).rstrip())
