"""What a load test hands out: nothing of it is lost because something else cannot be told."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, testing
from tailrace.bench import runner
from tailrace.bench.results import Results, results_of
from tailrace.bench.spec import Spec
from tailrace.bench.verify import Verdict
from tailrace.cli import bench_publishing
from tailrace.cli.bench_publishing import publish
from tailrace.cli.main import run
from tailrace.processes.launch import Child
from tailrace.processes.signal_pipe import stop_signals
from tailrace.testing import Cluster

from ..patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
VERDICT = Verdict(
    acked=10, read=8, lost=2, doubled=0, reordered=0, unasked=0, unacked=0, altered=0, foreign=0,
    examples=["record 3 of producer 0: acknowledged, and never read"],
)  # fmt: skip


def failed(**more: Any) -> Results:
    spec = Spec(mode="produce", verify=True)
    return results_of(spec, [], 0, [], interrupted=False, verification=VERDICT, **more)


def test_a_failed_verification_is_loud(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else is printed, and wherever to."""
    for file in (None, Path("-")):
        assert publish(failed(problem="the end"), file, None) == 1
        said = capsys.readouterr()
        assert said.err.startswith("Error: the end\nVERIFICATION FAILED: of 10 acknowledged records 2 lost")
        assert "record 3 of producer 0" in said.err
    assert json.loads(said.out)["verification"]["lost"] == 2


def test_a_file_that_cannot_be_written_is_all_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, full = tmp_path / "report.html", Path("/dev/full")
    assert publish(failed(), full, page) == 1
    assert "</html>" in page.read_text()
    said = capsys.readouterr()
    assert said.out.startswith("0 records sent")
    assert "Error: Could not open file '/dev/full': no space left on device\n" in said.err


PUBLISH = """
import sys
from pathlib import Path
from tests.cli.test_bench_publishing import VERDICT, failed
from tailrace.bench.results import results_of
from tailrace.bench.spec import Spec
from tailrace.cli.bench_publishing import publish
how, json, report = sys.argv[1:]
results = failed() if how == "failed" else results_of(Spec(mode="produce"), [], 0, [], interrupted=False)
sys.exit(publish(results, Path(json), Path(report)))
"""


@pytest.mark.parametrize(
    ("how", "full", "code"),
    [("failed", False, 1), ("failed", True, 1), ("fine", False, 141), ("fine", True, 1)],
)
def test_a_stdout_that_takes_nothing_is_all_that_is_missing(
    tmp_path: Path, how: str, full: bool, code: int
) -> None:
    """And is not what the exit code is about, if there is worse."""
    if full:
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    files = (tmp_path / "figures.json", tmp_path / "report.html")
    command = [sys.executable, "-c", PUBLISH, how, *map(str, files)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S
    )
    os.close(writer)
    assert done.returncode == code, done.stderr
    assert json.loads(files[0].read_text())["records_per_s"] == 0
    assert "</html>" in files[1].read_text()
    assert ("VERIFICATION FAILED" in done.stderr) is (how == "failed")
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------- signals


def before(what: Callable[..., Any], number: signal.Signals) -> Callable[..., Any]:
    """It, just when a signal has come."""

    def do(*args: Any, **options: Any) -> Any:
        signal.raise_signal(number)
        return what(*args, **options)

    return do


def after(what: Callable[..., Any], number: signal.Signals) -> Callable[..., Any]:
    """It, and then a signal comes."""

    def do(*args: Any, **options: Any) -> Any:
        done = what(*args, **options)
        signal.raise_signal(number)
        return done

    return do


def topics(cluster: Cluster) -> list[str]:
    with Admin(cluster.bootstrap_servers) as admin:
        return admin.list_topics()


@pytest.mark.parametrize("number", stop_signals())
def test_a_signal_when_the_topic_is_made(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    for when in (before, after):
        with monkeypatch.context() as patch:
            patch.setattr(Admin, "create_topic", when(Admin.create_topic, number))
            assert run(["bench", "produce", "-b", cluster.bootstrap_servers]) == 130
        assert topics(cluster) == []
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", "")


def test_a_signal_when_figures_are_told(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Also when they are made of what was heard."""
    for module, name in ((runner, "results_of"), (bench_publishing, "print_results")):
        file = tmp_path / f"{name}.json"
        with monkeypatch.context() as patch:
            patch.setattr(module, name, before(getattr(module, name), signal.SIGTERM))
            arguments = ["bench", "produce", "--records", "10", "--json", str(file)]
            assert run([*arguments, "-b", cluster.bootstrap_servers]) == 130
        assert capsys.readouterr().out.startswith("10 records sent, ")
        assert json.loads(file.read_text())["acked"] == 10
        assert topics(cluster) == []


def test_a_signal_when_the_topic_is_deleted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As when nobody answers: it is not waited for, and the figures are out."""
    file = tmp_path / "figures.json"
    with monkeypatch.context() as patch:
        patch.setattr(Admin, "delete_topic", before(Admin.delete_topic, signal.SIGTERM))
        arguments = ["bench", "produce", "--records", "10", "--json", str(file)]
        assert run([*arguments, "-b", cluster.bootstrap_servers]) == 130
    said = capsys.readouterr()
    assert said.out.startswith("10 records sent, ")
    (topic,) = topics(cluster)
    assert f"topic {topic} was perhaps not deleted: interrupted\n" in said.err
    assert json.loads(file.read_text())["acked"] == 10
    with Admin(cluster.bootstrap_servers) as admin:
        admin.delete_topic(topic)


def test_a_signal_when_the_cluster_of_its_own_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Cluster, "_start", after(Cluster._start, signal.SIGTERM))
    assert run(["bench", "produce"]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_signals_when_the_cluster_of_its_own_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The first lets it end, the second does not; nothing is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stop = testing._stop
    for numbers in ([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]):
        coming = iter(numbers)

        def stopped(children: list[Child], coming: Iterator[signal.Signals] = coming) -> list[str]:
            for number in islice(coming, 1):
                signal.raise_signal(number)
            return stop(children)

        monkeypatch.setattr(testing, "_stop", stopped)  # called for the nodes, then for the coordinator
        assert run(["bench", "produce", "--records", "10"]) == 130
        assert list(coming) == []
        assert capsys.readouterr().out.startswith("10 records sent, ")
        assert list(tmp_path.iterdir()) == []
