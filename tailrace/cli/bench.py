"""`tailrace bench`: load tests with producers and consumers in processes of their own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from tailrace.protocol.errors import InvalidArgumentError, TailraceError, UnknownTopicError
from tailrace.protocol.limits import NODES_MAX

from . import exit_codes
from .bench_output import reporting
from .bench_publishing import check_files, publish
from .connect import admin_of
from .interrupts import Interrupts
from .open_files import raise_file_limit
from .options import COUNT, MILLISECONDS, RATE, SECONDS, SIZE, timeout_option
from .output import say
from .topic_names import complete_topics

if TYPE_CHECKING:
    from tailrace.bench.results import Results
    from tailrace.bench.spec import Mode, Spec
    from tailrace.client.admin import Admin

    Tell = Callable[[Results], int]
    """Hands out what was measured, before anything is undone, which may take long; the exit code."""

Option = Callable[[Any], Any]
FLUSH: Final = "commit"
"""How the nodes of a cluster that is started here write."""
DELETE_MS: Final = 5_000
"""After an interrupt or an error the topic is not waited for longer, since perhaps nobody can delete it."""


_COMMON: Final[tuple[Option, ...]] = (
    click.option("--producers", metavar="P", type=int, default=1, show_default=True, help="Processes."),
    click.option(
        "--consumers", metavar="C", type=int, default=1, show_default=True,
        help="Processes that read (after produce, if it is to --verify); the partitions go round.",
    ),
    click.option(
        "--partitions", metavar="N", type=int, default=1, show_default=True,
        help="Of the topic that is made.",
    ),
    click.option(
        "--replication-factor", metavar="R", type=int, default=1, show_default=True,
        help="Of the topic that is made: on so many nodes.",
    ),
    click.option(
        "--record-size", "record_bytes", type=SIZE, default="100", show_default=True,
        help="Of a value, such as 100 or 1.5KiB.",
    ),
    click.option(
        "--records", metavar="N", type=COUNT,
        help="Of all producers together, such as 500k; default a million, at most 1 GiB of them, for latency "
        "10 s of them.",
    ),
    click.option(
        "--duration", "duration_s", type=SECONDS,
        help="Such as 10s or 5m; seconds. No more is written after it, be it less than --records; consume "
        "reads so long, again and again.",
    ),
    click.option("--acks", type=click.Choice(["all", "1", "0"]), default="all", show_default=True),
    click.option(
        "--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none",
        show_default=True,
    ),
    click.option(
        "--keys", metavar="N", type=COUNT, default="0", show_default=True,
        help="So many different keys, which choose the partitions; 0 for none.",
    ),
    click.option(
        "--batch-size", "batch_bytes", metavar="SIZE", default="512KiB", show_default=True,
        type=SIZE, help="When a batch is full.",
    ),
    click.option(
        "--local/--remote", "local", default=True, show_default=True,
        help="How nodes on this machine are reached: the fastest way, or over TCP like all others.",
    ),
    click.option(
        "--verify", is_flag=True,
        help="Check that each acknowledged record is read once, in order, and as it was sent.",
    ),
    click.option(
        "--topic", metavar="TOPIC", shell_complete=complete_topics,
        help="Write to this one, or for consume read what it holds; it exists and stays. Without it one is "
        "made, and deleted in the end unless its verification fails.",
    ),
    click.option(
        "-b", "--bootstrap-servers", envvar="TAILRACE_BOOTSTRAP_SERVERS", show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="The coordinator of a running cluster; without it one is started in a temporary folder "
        "(TMPDIR), and removed in the end.",
    ),
    click.option(
        "--nodes", type=click.IntRange(1, NODES_MAX),
        help="Of the cluster that is started.  [default: as many as the replication factor]",
    ),
    timeout_option,
    click.option(
        "--json", "json_file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE", help="Write all figures there; - for stdout, in place of the text.",
    ),
    click.option(
        "--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html",
        help="Write a page with plots there, to be opened in a browser.",
    ),
)  # fmt: skip
_rate = click.option(
    "--rate", metavar="R", type=RATE,
    help="Records a second, such as 50k, of all producers together: an open loop, in which latencies count "
    "from when a record was due, however late it was sent. Default as fast as they can; for latency 1000.",
)  # fmt: skip
_linger = click.option(
    "--linger", "linger_ms", type=MILLISECONDS, default="5ms", show_default=True,
    help="How long a batch waits to be filled.",
)  # fmt: skip
_no_linger = click.option(
    "--linger", "linger_ms", type=MILLISECONDS, default="0ms", show_default=True,
    help="How long a batch waits to be filled.",
)  # fmt: skip
_one_by_one = click.option("--one-by-one", is_flag=True, help="Use `send`, not `send_many`.")
_poll = click.option("--poll", is_flag=True, help="Use `poll()`, not `batches()`.")


def _options(*more: Option) -> Option:
    """Those of all commands, with these among them."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_COMMON[:7], *more, *_COMMON[7:])):
            command = option(command)
        return command

    return add


@click.group()
def bench() -> None:
    """Load tests against a running cluster, or one that is started for it."""


@bench.command()
@_options(_rate, _linger, _one_by_one, _poll)
def produce(**options: Any) -> int:
    """How fast records are acknowledged. With --verify they are read afterwards."""
    return _run("produce", options)


@bench.command()
@_options(_linger, _one_by_one, _poll)
def consume(**options: Any) -> int:
    """How fast records are read.

    Those that --topic holds (--records of them at most), or that a topic of its own is filled with first.
    With --duration they are read again and again.
    """
    return _run("consume", options)


@bench.command()
@_options(_rate, _linger, _one_by_one, _poll)
def e2e(**options: Any) -> int:
    """How fast records are written and read at once.

    From the first send to the last receipt.
    """
    return _run("e2e", options)


@bench.command()
@_options(_rate, _no_linger, _poll)
def latency(**options: Any) -> int:
    """How long a record takes at a fixed rate.

    From when it was due to the hands of a consumer.
    """
    return _run("latency", options)


def _run(mode: "Mode", options: dict[str, Any]) -> int:
    from tailrace.bench.histogram import require
    from tailrace.bench.spec import Spec, check_shares, completed

    servers, nodes, topic, json_file, report_file = (
        options.pop(name) for name in ("bootstrap_servers", "nodes", "topic", "json_file", "report_file")
    )
    _check_sense(mode, topic, servers, nodes, options)
    require()
    raise_file_limit()
    if options["compression"] == "none":
        options["compression"] = None
    try:
        spec = completed(Spec(mode=mode, topic=topic or "", existing=topic is not None, **options))
        if not spec.existing:
            check_shares(spec)
        check_files(json_file, report_file)
        tell = partial(publish, json_file=json_file, report_file=report_file)
        with Interrupts() as interrupts:
            return _measure(spec, servers, nodes or spec.replication_factor, tell, interrupts)
    except InvalidArgumentError as error:
        raise click.UsageError(_in_options(str(error))) from None


def _check_sense(
    mode: "Mode", topic: str | None, servers: str | None, nodes: int | None, options: dict[str, Any]
) -> None:
    """No option is ignored."""
    from tailrace.bench.spec import OF_READING

    replicas = options["replication_factor"]
    if nodes is not None and servers is not None:
        raise click.UsageError(f"--nodes is for a cluster that is started here, not for that at {servers}")
    if nodes is not None and nodes < replicas:
        raise click.UsageError(f"--replication-factor {replicas} needs as many nodes: --nodes {replicas}")
    for name in OF_READING:
        if mode == "produce" and not options["verify"] and _is_given(name):
            raise click.UsageError(f"--{name} is for what reads, as --verify does")
    if topic is not None:
        _check_topic(mode, topic, servers)


def _check_topic(mode: "Mode", topic: str, servers: str | None) -> None:
    from tailrace.bench.spec import OF_WRITING

    if servers is None:
        raise click.UsageError("--topic is one of a running cluster: name that with --bootstrap-servers")
    for parameter in click.get_current_context().command.params:
        name, option = str(parameter.name), parameter.opts[0]
        if name in ("partitions", "replication_factor") and _is_given(name):
            raise click.UsageError(f"{option} is for a topic that is made here: {topic} has its own")
        if mode == "consume" and name in OF_WRITING and _is_given(name):
            raise click.UsageError(f"{option} is for what is written: consume only reads what {topic} holds")


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def _measure(spec: "Spec", servers: str | None, nodes: int, tell: "Tell", interrupts: Interrupts) -> int:
    """On a cluster that is there or is started for this; the exit code."""
    code = None
    try:
        with _cluster(servers, nodes, interrupts) as (bootstrap_servers, processes):
            code = _measure_at(bootstrap_servers, processes, spec, tell, interrupts)
    except TailraceError as error:
        if code is None:
            raise
        say(f"Error: {error}")  # it did not stop cleanly
        return code or exit_codes.ERROR
    return code


def _measure_at(
    servers: str, processes: dict[str, int | None], spec: "Spec", tell: "Tell", interrupts: Interrupts
) -> int:
    """`processes` are those of the cluster, if it was started for this."""
    import msgspec

    from tailrace.bench.runner import Runner, named, prepare
    from tailrace.bench.servers import find_nodes

    results, own = None, bool(processes)
    with admin_of(servers, spec.timeout_s) as admin:
        nodes = find_nodes(admin)
        spec = msgspec.structs.replace(
            spec, bootstrap_servers=servers, nodes=len(nodes), flush=FLUSH if own else None
        )
        spec = named(spec)
        try:
            spec = prepare(admin, spec)
            try:
                with reporting() as report:
                    runner = Runner(spec, admin, processes or nodes, report, own=own, begin=interrupts.hold)
                    results = runner.run()
                return tell(results)
            finally:
                interrupts.release()
        finally:
            if not (spec.existing or own):  # else the cluster goes, too
                _delete(admin, spec.topic, results, hurry=interrupts.raised)


def _delete(admin: "Admin", topic: str, results: "Results | None", *, hurry: bool) -> None:
    """A topic that somebody has to look into is not lost."""
    verdict = None if results is None else results.verification
    if verdict is not None and not verdict.holds:
        how = f"tailrace topic delete {topic}"
        say(f"topic {topic} stays, to be looked into; delete it: {how}")
        return
    whole = results is not None and not (results.interrupted or results.problem or hurry)
    try:
        admin.delete_topic(topic, timeout_ms=None if whole else DELETE_MS)
    except KeyboardInterrupt:
        say(f"topic {topic} was perhaps not deleted: interrupted")
        raise
    except UnknownTopicError as error:
        if results is not None:  # else it was not made yet
            say(f"topic {topic} was not deleted: {error}")
    except TailraceError as error:
        say(f"topic {topic} was not deleted: {error}")


@contextmanager
def _cluster(
    servers: str | None, nodes: int, interrupts: Interrupts
) -> Iterator[tuple[str, dict[str, int | None]]]:
    """Where the cluster is, and its processes if they are ours."""
    if servers is not None:
        yield servers, {}
        return
    from tailrace.testing import Cluster

    interrupts.hold()
    try:
        with Cluster(nodes, flush=FLUSH) as cluster:
            try:
                interrupts.release()
                processes: dict[str, int | None] = {"coordinator": cluster.coordinator_pid}
                processes |= {f"node {number}": cluster.pid(number) for number in cluster.node_ids}
                yield cluster.bootstrap_servers, processes
            finally:
                interrupts.hold()
    finally:
        interrupts.release()


def _in_options(message: str) -> str:
    """What does not fit, by the names that the command line has for it."""
    for name, option in (
        ("record_bytes", "--record-size"), ("batch_bytes", "--batch-size"), ("duration_s", "--duration"),
        ("linger_ms", "--linger"), ("replication_factor", "--replication-factor"),
    ):  # fmt: skip
        message = message.replace(name, option)
    first, _, rest = message.partition(" ")
    known = ("producers", "consumers", "partitions", "records", "rate", "keys")
    return f"--{first} {rest}" if first in known else message
