"""How commands print: JSON lines for programs, aligned columns for people."""

import errno
import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

LOOK_AT_READER_MS: Final = 1_000
"""How often who has nothing to print looks whether anybody would still read it."""

STDOUT: Final = 1

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


def discard_stdout() -> None:
    """Nobody takes it any more: let nothing that is still buffered, or said later, raise for that."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def os_error_text(error: OSError) -> str:
    """What the system said, without its number: `data/x: permission denied`."""
    reason = (error.strerror or str(error)).lower()
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
