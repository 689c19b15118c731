"""`tailrace verify`: read all that stopped nodes have stored, and compare it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.text import plural

from . import exit_codes
from .options import json_option
from .output import print_json, say
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.node.storage.verify import Progress, Report


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="FOLDER...",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@json_option
def verify(folders: Sequence[Path], *, as_json: bool) -> int:
    """Check the data folders of nodes that are not running: every batch, and what is kept about it.

    FOLDER is a node's, such as data/node-1, or the one of a cluster, for all nodes in it. Nothing is
    changed. The exit code is 1 if something is wrong.
    """
    from tailrace.node.storage.verify import verify_folder

    wrong = False
    for folder in [node for each in folders for node in _nodes_in(each)]:
        try:
            with _shown(folder) as progress:
                report = verify_folder(folder, progress)
        except DataFolderError as error:
            wrong = True
            if as_json:
                print_json({"folder": str(folder), "ok": False, "error": str(error)})
            else:
                say(f"Error: {error}")
            continue
        wrong = wrong or bool(report.problem_count)
        if as_json:
            print_json({"folder": str(folder), "ok": not report.problem_count, **report._asdict()})
        else:
            _print_text(folder, report)
    return exit_codes.ERROR if wrong else exit_codes.OK


def _nodes_in(folder: Path) -> list[Path]:
    """The folders of nodes in a cluster's; else it is to be one itself."""
    return sorted(path for path in folder.glob("node-*") if path.is_dir()) or [folder]


def _print_text(folder: Path, report: "Report") -> None:
    for problem in report.problems:
        click.echo(f"{folder}: {problem}")
    if report.problem_count > len(report.problems):
        click.echo(f"{folder}: ... and {report.problem_count - len(report.problems)} more")
    found = plural(report.problem_count, "problem") if report.problem_count else "all is well"
    click.echo(
        f"{folder}: {found} in {plural(report.partitions, 'partition')}, {report.batches:,} batches, "
        f"{report.records:,} records, {human_bytes(report.size_bytes)}"
    )


@contextmanager
def _shown(folder: Path) -> "Iterator[Progress]":
    """A line on a terminal that is replaced; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return

    def show(done: int, total: int) -> None:
        share = f"{done * 100 // total}% of {human_bytes(total)}" if total else human_bytes(done)
        say(f"\r\033[K{folder}: {share}", newline=False)

    try:
        yield show
    finally:
        say("\r\033[K", newline=False)
