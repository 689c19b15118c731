"""`tailrace run`: a function of a module as the handler of a pool of workers."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tailrace.client.serializers import NAMES
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.similar import did_you_mean
from tailrace.protocol.text import plural

from .options import bootstrap_option, json_option, timeout_option
from .output import print_json, progress_console, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

LIVE_EVERY_S: Final = 0.25
PLAIN_EVERY_S: Final = 5.0
"""How often a line is said where nobody watches a terminal."""
_COLUMNS: Final = (
    "worker", "pid", "state", "partitions", "records", "records_per_s", "lag", "errors", "retries",
    "dead_letters", "restarts",
)  # fmt: skip
_HEADINGS: Final = {
    "worker": "#", "partitions": "parts", "records": "done", "records_per_s": "/s", "dead_letters": "dead",
    "restarts": "starts",
}  # fmt: skip

Report = Callable[[dict[str, Any]], None]


def find_handler(text: str) -> Callable[..., Any]:
    """`package.module:function`, also of the current folder. Raises click.BadParameter."""
    name, colon, attribute = text.partition(":")
    if not name or not colon or not attribute:
        raise click.BadParameter(f"{text!r} is no handler: write module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if "/" in name or name.endswith(".py"):
        module_name = Path(name.removesuffix(".py")).name
        raise click.BadParameter(f"{name!r} is a file: write {module_name}:{attribute}, in its folder")
    try:
        with redirect_stdout(sys.stderr):  # what is said meanwhile, each worker says, too
            module = import_module(name)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else error
        raise click.BadParameter(f"module {name!r} cannot be imported: {what}") from error
    found: Any = module
    for part in attribute.split("."):
        names = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
        if not hasattr(found, part):
            few = ", ".join(names[:10]) or "nothing that can be called"
            raise click.BadParameter(
                f"{name!r} has no {attribute!r}{did_you_mean(part, names)} (there is {few})"
            )
        found = getattr(found, part)
    if not callable(found):
        raise click.BadParameter(f"{text!r} is {type(found).__name__} {found!r:.60}, which cannot be called")
    function: Callable[..., Any] = found
    return function


def _handler(_: click.Context, __: click.Parameter, text: str) -> Callable[..., Any]:
    return find_handler(text)


@click.command()
@click.argument("handler", callback=_handler, metavar="MODULE:FUNCTION")
@click.option("-t", "--topic", "topics", multiple=True, required=True, help="May be repeated.")
@click.option("-g", "--group", "group_id", required=True, help="The group that the workers are members of.")
@click.option(
    "-n", "--processes", type=click.IntRange(min=1), default=lambda: os.cpu_count() or 1,
    show_default="one for each core",
)  # fmt: skip
@click.option("--batches", is_flag=True, help="Call the function with whole batches, not records.")
@click.option("--output-topic", metavar="TOPIC", help="Where what the function returns goes.")
@click.option(
    "--dead-letter-topic", metavar="TOPIC",
    help="Where records go that the function cannot do; without it the first ends everything.",
)  # fmt: skip
@click.option("--retries", type=click.IntRange(min=0), default=3, show_default=True, help="After a failure.")
@click.option("--retry-backoff-ms", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--commit-interval-ms", type=click.IntRange(min=0), default=1_000, show_default=True)
@click.option("--key-deserializer", type=click.Choice(NAMES))
@click.option("--value-deserializer", type=click.Choice(NAMES))
@click.option("--output-serializer", type=click.Choice(NAMES))
@click.option(
    "--local-state", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Call function(record, transaction): keys and offsets are stored there together, exactly once.",
)  # fmt: skip
@click.option(
    "-o", "--offset", "reset", type=click.Choice(["start", "end"]), default="start", show_default=True,
    help="Where to begin where the group has committed nothing.",
)  # fmt: skip
@click.option("-e", "--exit", "stop_at_end", is_flag=True, help="Stop when all is done that is there now.")
@bootstrap_option
@timeout_option
@json_option
def run(
    *,
    handler: Callable[..., Any],
    topics: Sequence[str],
    reset: str,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Call FUNCTION of MODULE for every record of the topics, in several processes.

    MODULE is found on Python's path and in the current folder. Offsets are committed after the function
    returned (at least once). Ctrl-C finishes the records in hand; a second one does not wait for that.
    """
    from tailrace.workers.pool import Pool

    try:
        pool = Pool(
            handler,
            topics,
            bootstrap_servers=bootstrap_servers,
            auto_offset_reset="earliest" if reset == "start" else "latest",
            request_timeout_ms=round(timeout_s * 1000),
            **options,
        )
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from None
    if as_json:  # stdout is for one who reads JSON
        pool.stdout = sys.stderr.fileno()
    pool.check_topics()
    started = time.monotonic()
    try:
        with _reporting(as_json=as_json) as (report, every_s):
            pool.run(report, every_s)
    finally:
        if pool.started:
            _summarize(pool.metrics(), time.monotonic() - started, as_json=as_json)


def _summarize(done: dict[str, Any], seconds: float, *, as_json: bool) -> None:
    """At the end, whatever ended it: the rate is that of the whole run."""
    done["records_per_s"] = round(done["records"] / seconds, 1)
    if as_json:
        print_json({"event": "ended", "seconds": round(seconds, 3), **done})
    else:
        unknown = "; what workers did just before they died is not counted" if done["restarts"] else ""
        say(f"{_line(done)}, in {seconds:.1f} s{unknown}")


@contextmanager
def _reporting(*, as_json: bool) -> "Iterator[tuple[Report, float]]":
    """A table on a terminal; lines elsewhere."""
    if as_json:
        yield print_json, PLAIN_EVERY_S
        return
    if not sys.stderr.isatty():
        yield lambda metrics: say(_line(metrics)), PLAIN_EVERY_S
        return
    from rich.live import Live

    with Live(console=progress_console(), auto_refresh=False, transient=True) as live:
        yield lambda metrics: live.update(_table(metrics), refresh=True), LIVE_EVERY_S


def _line(metrics: dict[str, Any]) -> str:
    running = sum(worker["state"] == "running" for worker in metrics["workers"])
    return (
        f"{plural(metrics['records'], 'record')}, {metrics['records_per_s']:,.0f}/s, lag {metrics['lag']:,}, "
        f"{plural(metrics['errors'], 'failed attempt')}, {plural(metrics['dead_letters'], 'dead letter')}, "
        f"{plural(metrics['restarts'], 'restart')}, {plural(running, 'worker')} running"
    )


def _table(metrics: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=_line(metrics), title_justify="left", box=None)
    for column in _COLUMNS:
        table.add_column(_HEADINGS.get(column, column), justify="right")
    for worker in metrics["workers"]:
        table.add_row(*(_cell(worker[column]) for column in _COLUMNS))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
