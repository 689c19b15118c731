"""`tailrace torture`: a real cluster under load and faults, and a check of all that happened."""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from tailrace.protocol.errors import InvalidArgumentError, TailraceError

from . import exit_codes
from .options import RATE, SECONDS, json_option
from .output import os_error_text, print_json, print_table, say

if TYPE_CHECKING:
    from tailrace.torture.network import Network
    from tailrace.torture.runner import Report
    from tailrace.torture.spec import Results, Spec

PLAIN_EVERY_S: Final = 5.0
"""How often a line is said where nobody watches a terminal."""
LOOPBACK: Final = "127.0.0.1:0"


@click.command()
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--duration", "duration_s", default="60", show_default=True, type=SECONDS,
              help="How long faults are injected, such as 30s or 5m.")  # fmt: skip
@click.option("--faults", "kinds", default="kill,stop", show_default=True, metavar="LIST",
              help="Of kill, stop, partition, disk-full; the last two need namespaces (root).")  # fmt: skip
@click.option("--every", "every_s", default="5", show_default=True, type=SECONDS,
              help="A fault begins every so often.")  # fmt: skip
@click.option("--seed", type=int, help="Of the plan of faults; at random, and printed, unless it is given.")
@click.option("--seeds", type=click.IntRange(1, 1_000), default=1, show_default=True, metavar="N",
              help="So many runs, with seeds from --seed on.")  # fmt: skip
@click.option("--rate", "records_per_s", metavar="R", type=RATE, default="2000", show_default=True,
              help="Records a second, of all producers together.")  # fmt: skip
@click.option("--producers", type=int, default=2, show_default=True, help="Processes.")
@click.option("--consumers", type=int, default=2, show_default=True, help="Processes; each reads everything.")
@click.option("--partitions", type=int, default=6, show_default=True)
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path),
              help="An empty folder for the data, kept; else a temporary one.")  # fmt: skip
@click.option("--history", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep the histories and logs there; else only what went wrong is kept.")  # fmt: skip
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html",
              help="Write a page with a picture of the time line there.")  # fmt: skip
@json_option
def torture(
    file: Path, kinds: str, seed: int | None, seeds: int, data_dir: Path | None, history: Path | None,
    report_file: Path | None, *, as_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Break a cluster on purpose while it works, and check that it keeps its promises.

    Runs the cluster of a YAML file with its settings (not its data and ports), has producers write and
    consumers read all the time, and kills, suspends, cuts off and fills up its processes as a seed says. In
    the end every acknowledged record must lie once and in order in every replica, and have been read so.

    The exit code is 0 if all that holds, and 1 if not.
    """
    from tailrace.torture.isolation import isolated, refusal, unshared
    from tailrace.torture.plan import kinds_of
    from tailrace.torture.spec import Spec

    seed = int.from_bytes(os.urandom(3)) if seed is None else seed
    try:
        spec = Spec(seed=seed, kinds=kinds_of(kinds), **options)
        spec.check()
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from None
    settings = _settings_of(file)
    _check_places(data_dir, history, report_file)
    reason = refusal(spec.kinds)
    if reason is not None:
        raise click.UsageError(reason)
    if isolated(spec.kinds):
        from tailrace.torture.isolation import UNSHARED

        command = unshared(spec.kinds, [*sys.argv[1:], "--seed", str(seed)])
        os.execvpe(command[0], command, {**os.environ, UNSHARED: "1"})
    specs = [msgspec.structs.replace(spec, seed=seed + number) for number in range(seeds)]
    return _run_all(specs, settings, data_dir, history, report_file, as_json=as_json)


def _run_all(
    specs: "Sequence[Spec]", settings: dict[str, Any], data_dir: Path | None, history: Path | None,
    report_file: Path | None, *, as_json: bool,
) -> int:  # fmt: skip
    kept = Path(tempfile.mkdtemp(prefix="tailrace-torture-")) if history is None else history
    network = _network_of(settings) if "partition" in specs[0].kinds else None
    runs: list[Results] = []
    for spec in specs:
        runs.append(_run_one(spec, settings, network, data_dir, kept))
        try:
            _show(runs[-1], as_json=as_json)
        finally:  # also when nobody reads what is shown
            if report_file is not None:
                _write_report(runs, report_file)
        if runs[-1].interrupted:
            break
    if len(specs) > 1 and not as_json:
        _show_all(runs)
    holds = all(results.holds for results in runs)
    if history is None and holds:
        shutil.rmtree(kept)
    elif not as_json:
        click.echo(f"\nhistories in {kept}")
    if runs[-1].interrupted:
        return exit_codes.INTERRUPTED
    return exit_codes.OK if holds else exit_codes.ERROR


def _run_one(
    spec: "Spec",
    settings: dict[str, Any],
    network: "Network | None",
    data_dir: Path | None,
    histories: Path,
) -> "Results":
    from tailrace.torture.runner import Runner

    folder = (
        Path(tempfile.mkdtemp(prefix="tailrace-")) if data_dir is None else data_dir / f"seed-{spec.seed}"
    )
    history = histories / f"seed-{spec.seed}"
    for each in (folder, history):
        each.mkdir(parents=True, exist_ok=True)
        if any(each.iterdir()):
            raise click.UsageError(f"{each} is not empty")
    kinds = ", ".join(spec.kinds)
    say(f"seed {spec.seed}: {spec.duration_s:g} s, a fault every {spec.every_s:g} s ({kinds})")
    try:
        runner = Runner(spec, settings, folder=folder, history=history, network=network, report=_reporting())
        return runner.run()
    finally:
        if sys.stderr.isatty():
            say("\r\033[K", newline=False)
        if data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)  # what is mounted in it goes with the process


def _network_of(settings: dict[str, Any]) -> "Network":
    """One for all runs."""
    from tailrace.processes.launch import COORDINATOR, Role
    from tailrace.torture.network import Network

    return Network([COORDINATOR, *(Role(node["id"]) for node in settings["nodes"])])


def _settings_of(file: Path) -> dict[str, Any]:
    """The cluster's settings, checked, but for where it keeps its data and listens."""
    import yaml

    from .cluster_config import load_cluster

    load_cluster(file)
    settings = yaml.safe_load(file.read_text())
    assert isinstance(settings, dict)
    coordinator = {**(settings.get("coordinator") or {}), "listen": LOOPBACK}
    coordinator.pop("publisher_listen", None)
    nodes = [{key: value for key, value in node.items() if key != "listen"} for node in settings["nodes"]]
    return {**settings, "insecure": False, "coordinator": coordinator, "nodes": nodes}


def _check_places(*places: Path | None) -> None:
    """A long run is not to end with a path that cannot be written."""
    for place in places:
        if place is not None and not place.absolute().parent.is_dir():
            raise click.UsageError(f"{place}: there is no folder {place.absolute().parent}")


def _reporting() -> "Report":
    """One line on stderr that is replaced on a terminal; one every few seconds elsewhere."""
    said_at = [-PLAIN_EVERY_S]

    def report(seconds: float, text: str) -> None:
        line = f"{seconds:.1f} s: {text}"
        if sys.stderr.isatty():
            say(f"\r\033[K{line}", newline=False)
        elif seconds >= said_at[0] + PLAIN_EVERY_S:
            said_at[0] = seconds
            say(line)

    return report


def _show(results: "Results", *, as_json: bool) -> None:
    from tailrace.torture.summary import fault_rows, verdict_line

    if as_json:
        fields = msgspec.to_builtins(results)
        timeline = fields.pop("timeline")
        print_json({**fields, "holds": results.holds, "faults": timeline["faults"]})
        return
    click.echo(f"seed {results.spec.seed}: {verdict_line(results)}")
    for example in results.verdict.examples:
        click.echo(f"  {example}")
    click.echo()
    print_table(("fault", "times", "median outage s", "longest outage s"), fault_rows([results]))
    click.echo()


def _show_all(runs: "Sequence[Results]") -> None:
    """All runs together."""
    from tailrace.torture.summary import fault_rows

    click.echo(f"all {len(runs)} seeds:")
    print_table(("fault", "times", "median outage s", "longest outage s"), fault_rows(runs))
    bad = [str(results.spec.seed) for results in runs if not results.holds]
    acked = sum(results.verdict.acked for results in runs)
    click.echo(f"\n{acked:,} records acknowledged; " + (f"VIOLATED by {', '.join(bad)}" if bad else "holds"))


def _write_report(runs: "Sequence[Results]", file: Path) -> None:
    from tailrace.torture.report import html_of

    try:
        file.write_text(html_of(runs))
    except OSError as error:
        raise TailraceError(os_error_text(error)) from None
