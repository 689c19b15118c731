"""`tailrace bench` on a real cluster: figures, files, verification, and that nothing of it is left."""

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.cli.main import run
from tailrace.testing import Cluster

from ..durability import recording
from ..patience import PATIENCE_S, wait_until
from ..suspended import suspended
from .conftest import COMMAND

Run = Callable[..., Any]
AllGone = Callable[[list[int]], None]


LOW = 256
"""Files that a process may have open: enough for this one, less than any machine allows."""


class Bench:
    """A running `tailrace bench`, whose own processes are known once it measures."""

    def __init__(self, folder: Path, *args: object, servers: str = "") -> None:
        environment = dict(os.environ, TMPDIR=str(folder), TAILRACE_BOOTSTRAP_SERVERS=servers)
        if not servers:
            del environment["TAILRACE_BOOTSTRAP_SERVERS"]
        self.process = subprocess.Popen(
            [*COMMAND, "bench", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def children(self) -> dict[int, str]:
        """Command lines by pid, when something is measured."""
        assert self.process.stderr is not None
        assert "measuring" in self.process.stderr.readline()
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids}

    def ended(self) -> tuple[int, str, str]:
        """Exit code and output."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    started: list[Bench] = []

    def begin(*args: object, servers: str = "") -> Bench:
        started.append(Bench(tmp_path, *args, servers=servers))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.communicate()


def topics(cluster: Cluster) -> list[str]:
    with Admin(cluster.bootstrap_servers) as admin:
        return [name for name in admin.list_topics() if name.startswith("bench-")]


def test_produce(cluster: Cluster, tailrace: Run, tmp_path: Path) -> None:
    sizes = ("--producers", 2, "--consumers", 2, "--partitions", 3, "--records", "20.001k", "--keys", 5)
    files = ("--json", tmp_path / "figures.json", "--report", tmp_path / "report.html")
    done = tailrace("bench", "produce", *sizes, "--compression", "lz4", "--verify", *files)
    assert re.match(r"20001 records sent, [\d.]+ records/sec \([\d.]+ MB/sec\), [\d.]+ ms avg", done.stdout)
    assert (
        "verified: each of 20,001 records with an acknowledgement was read once and in order" in done.stdout
    )
    assert re.search(r"producer 1 +10,000 .*MiB", done.stdout)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["verification"]["read"] == figures["acked"] == 20_001
    assert sum(moment["sent_per_s"] for moment in figures["timeline"]) > 0
    nodes = {server["name"]: server for server in figures["servers"]}
    assert set(nodes) == {"node 1", "node 2"}
    assert {nodes[f"node {number}"]["pid"] for number in (1, 2)} == {cluster.pid(1), cluster.pid(2)}
    assert nodes["node 1"]["cpu_s"] >= 0
    assert nodes["node 1"]["rss_anon_max"] > 1_000_000
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert topics(cluster) == []


@pytest.fixture
def figures(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """`figures("produce", ...)`: a test that runs from this process, which has all imports; its JSON."""

    def measure(*args: object) -> dict[str, Any]:
        assert run(["bench", *map(str, args), "-b", cluster.bootstrap_servers, "--json", "-"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return measure


def test_consume(cluster: Cluster, figures: Callable[..., dict[str, Any]]) -> None:
    found = figures("consume", "--records", 1_000, "--poll", "--verify")
    assert found["read"] == found["verification"]["acked"] == found["verification"]["read"] == 1_000
    again = figures("consume", "--records", 50, "--duration", "1s")
    assert again["read"] > 50
    assert again["ack"] is again["end_to_end"] is None
    assert topics(cluster) == []


def test_e2e_with_a_topic_that_is_there(cluster: Cluster, figures: Callable[..., dict[str, Any]]) -> None:
    """What it holds does not count, and it is kept."""
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("bench-kept", partitions=2, replication_factor=2)
        with Producer(cluster.bootstrap_servers) as producer:
            producer.send_many("bench-kept", [bytes(100)] * 10)
        options = ("--topic", "bench-kept", "--records", 500, "--verify", "--one-by-one", "--keys", 3)
        found = figures("e2e", *options)
        assert found["verification"] | {"examples": []} == {
            "acked": 500, "read": 500, "lost": 0, "doubled": 0, "reordered": 0, "unasked": 0, "unacked": 0,
            "altered": 0, "foreign": 0, "examples": [], "more": 0, "deleted": 0,
        }  # fmt: skip
        assert [found["spec"][name] for name in ("topic", "partitions", "replication_factor")] == [
            "bench-kept", 2, 2
        ]  # fmt: skip
        assert [found["spec"][name] for name in ("nodes", "flush")] == [2, None]
        assert found["end_to_end"]["latency"]["count"] == found["ack"]["latency"]["count"] == 500
        too_many = ["bench", "e2e", *map(str, options), "--consumers", "3", "-b", cluster.bootstrap_servers]
        assert run(too_many) == 2
        admin.delete_topic("bench-kept")


def test_records_are_as_large_and_as_many_as_it_was_told(
    cluster: Cluster, figures: Callable[..., dict[str, Any]]
) -> None:
    """The rate is that of all producers, for the time that was given."""
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("sized")
        options = ("--record-size", 70, "--producers", 2, "--rate", 100, "--duration", "300ms")
        found = figures("produce", "--topic", "sized", *options)
        assert (found["sent"] + found["unsent"], found["acked"]) == (30, found["sent"])
        end = found["sent"] + 2  # what opens connections
        assert offsets(admin, "sized") == [(0, end)]
        with Consumer(
            "sized", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            sizes = Counter(len(record.value) for record in islice(consumer, end))
        assert sizes == {0: 2, 70: found["sent"]}
        admin.delete_topic("sized")


def test_the_topic_is_as_it_was_told(cluster: Cluster, start: Callable[..., Bench]) -> None:
    """Of a cluster that runs: it holds it while something is measured."""
    options = ("--replication-factor", 2, "--partitions", 3, "--duration", "100s", "--rate", 100)
    running = start("produce", *options, servers=cluster.bootstrap_servers)
    running.children()
    with Admin(cluster.bootstrap_servers) as admin:
        (topic,) = topics(cluster)
        replicas = [sorted(each.replicas) for each in admin.describe_topic(topic).partitions]
    running.process.send_signal(signal.SIGINT)
    assert running.ended()[0] == 130
    assert replicas == [[1, 2]] * 3
    assert topics(cluster) == []


@pytest.fixture
def filled(cluster: Cluster) -> Iterator[str]:
    """10, 20, 30 records of somebody's and none, with values of 40 bytes, but that the 20 have none."""
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("mine", partitions=4)
        with Producer(cluster.bootstrap_servers) as producer:
            for partition, count in enumerate((10, 20, 30)):
                value = None if partition == 1 else bytes(40)
                for _ in range(count):
                    producer.send("mine", value, key=b"key", partition=partition)
        yield "mine"
        assert offsets(admin, "mine") == [(0, 10), (0, 20), (0, 30), (0, 0)], "nothing was written or deleted"
        assert admin.list_groups() == []
        admin.delete_topic("mine")


def offsets(admin: Admin, topic: str) -> list[tuple[int, int]]:
    """Where each partition begins and ends."""
    places = [TopicPartition(topic, each.partition) for each in admin.describe_topic(topic).partitions]
    starts = admin.list_offsets(dict.fromkeys(places, Admin.EARLIEST))
    ends = admin.list_offsets(dict.fromkeys(places, Admin.LATEST))
    return [(starts[place].offset, ends[place].offset) for place in places]  # type: ignore[union-attr]


@pytest.mark.parametrize("how", [(), ("--poll", "--remote"), ("--consumers", 4)])
def test_consume_reads_what_a_topic_holds(
    filled: str, figures: Callable[..., dict[str, Any]], how: tuple[object, ...]
) -> None:
    found = figures("consume", "--topic", filled, *how)
    assert (found["read"], found["sent"], found["acked"]) == (60, 0, 0)
    assert found["mb_per_s"] == pytest.approx(40 * 40 / found["seconds"] / 2**20)
    assert all(client["name"].startswith("consumer") for client in found["clients"])
    assert found["line"].startswith("60 records read, ")
    assert found["warm_up_records"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--poll",), ("--consumers", 4)])
def test_consume_reads_some_of_what_a_topic_holds(
    filled: str, figures: Callable[..., dict[str, Any]], how: tuple[object, ...]
) -> None:
    assert figures("consume", "--topic", filled, "--records", 25, *how)["read"] == 25
    assert figures("consume", "--topic", filled, "--records", "1k", *how)["read"] == 60
    again = figures("consume", "--topic", filled, "--records", 4, "--duration", "500ms", *how)
    assert again["read"] > 4


def test_what_comes_meanwhile_is_not_read(
    cluster: Cluster, start: Callable[..., Bench], all_gone: AllGone
) -> None:
    """The ends are those of the beginning, though others go on to write."""
    with Admin(cluster.bootstrap_servers) as admin, Producer(cluster.bootstrap_servers) as producer:
        admin.create_topic("growing", partitions=2)
        for partition in (0, 1):
            producer.send("growing", b"old", partition=partition).result(PATIENCE_S)
        running = start(
            "consume", "--topic", "growing", "--duration", "1s", "--json", "-",
            servers=cluster.bootstrap_servers,
        )  # fmt: skip
        children = running.children()
        while running.process.poll() is None:
            for partition in (0, 1):
                producer.send("growing", bytes(1000), partition=partition).result(PATIENCE_S)
        code, out, err = running.ended()
        admin.delete_topic("growing")
    assert code == 0, err
    found = json.loads(out)
    assert found["mb_per_s"] == pytest.approx(found["read"] * 3 / found["seconds"] / 2**20)
    all_gone(list(children))


@pytest.mark.slow
def test_what_opens_connections_is_told_of(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where it stays: the topic has these records, too."""
    arguments = ["bench", "produce", "--producers", "2", "--records", "7", "-b", cluster.bootstrap_servers]
    said = (
        "6 empty records more went to mine, which no figure counts: one of each producer to each "
        "partition, to open connections before the start"
    )
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("mine", partitions=3)
        page = tmp_path / "report.html"
        assert run([*arguments, "--topic", "mine", "--report", str(page)]) == 0
        assert f"\n{said}\n" in capsys.readouterr().out
        assert f">{said}</p>" in page.read_text()
        assert sum(end for _, end in offsets(admin, "mine")) == 7 + 6
        assert run(["bench", "consume", "--topic", "mine", "-b", cluster.bootstrap_servers]) == 0
        admin.delete_topic("mine")
    assert run([*arguments, "--partitions", "3"]) == 0
    assert "empty record" not in capsys.readouterr().out


def test_an_empty_topic(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("empty", partitions=2)
        assert run(["bench", "consume", "--topic", "empty", "-b", cluster.bootstrap_servers]) == 2
        assert "topic 'empty' holds no records: there is nothing to read" in capsys.readouterr().err
        admin.delete_topic("empty")


@pytest.mark.parametrize("mode", ["produce", "consume"])
def test_a_topic_that_is_not_there_is_not_made(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("bench-there")
        arguments = ["bench", mode, "--topic", "bench-their", "--records", "10"]
        assert run([*arguments, "-b", cluster.bootstrap_servers]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err) == (
            "", "Error: topic 'bench-their' does not exist; did you mean 'bench-there'?\n"
        )  # fmt: skip
        assert topics(cluster) == ["bench-there"]
        admin.delete_topic("bench-there")


@pytest.mark.parametrize("how", [(), ("--poll",), ("--rate", 5_000)])
def test_e2e_measures_until_a_consumer_has_it(
    cluster: Cluster, figures: Callable[..., dict[str, Any]], how: tuple[object, ...]
) -> None:
    found = figures("e2e", "--records", 1_000, *how)
    read, acked = found["end_to_end"]["latency"], found["ack"]["latency"]
    assert read["count"] == acked["count"] == 1_000
    assert 0 < read["p50_ms"] <= read["max_ms"] < 60_000
    assert {client["name"]: client["latency"]["count"] for client in found["clients"]} == {
        "producer 0": 1_000, "consumer 0": 1_000,
    }  # fmt: skip


def test_a_low_limit_of_files_is_raised(figures: Callable[..., dict[str, Any]]) -> None:
    """Each client takes several: it goes as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LOW, hard))
        figures("produce", "--records", 10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > LOW
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_producers_begin_in_partitions_of_their_own(figures: Callable[..., dict[str, Any]]) -> None:
    sizes = ("--producers", 3, "--consumers", 3, "--partitions", 3, "--records", 300)
    found = figures("e2e", *sizes)
    assert {client["name"]: client["records"] for client in found["clients"]} == {
        f"{role} {index}": 100 for role in ("producer", "consumer") for index in range(3)
    }


def test_latency(cluster: Cluster, figures: Callable[..., dict[str, Any]]) -> None:
    found = figures("latency", "--remote", "--rate", "2k", "--records", 600, "--keys", 9, "--partitions", 2)
    timing = found["end_to_end"]["latency"]
    assert timing["count"] == found["read"] == 600
    assert 0 < timing["p50_ms"] <= timing["p999_ms"] <= timing["max_ms"]
    assert found["ack"]["latency"]["p50_ms"] <= timing["max_ms"]
    assert found["seconds"] >= 0.299  # an open loop: not faster than the rate
    assert topics(cluster) == []


class Screen:
    """A terminal that a process has as its stderr, and what was shown on it."""

    def __init__(self) -> None:
        self._fd, self.stderr = os.openpty()
        self.shown = ""

    def watch(self) -> bool:
        """Wait for something new. False: nobody has the terminal any more."""
        assert select.select([self._fd], [], [], PATIENCE_S)[0], self.shown
        try:
            self.shown += os.read(self._fd, 4_096).decode()
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """The process has it now."""
        os.close(self.stderr)
        self.stderr = -1

    def close(self) -> None:
        """For all who have it. A second call does nothing."""
        if self.stderr != -1:
            self.let_go()
        if self._fd != -1:
            os.close(self._fd)
        self._fd = -1


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_on_a_terminal_a_line_moves(cluster: Cluster, screen: Screen) -> None:
    """It stays where it is while something is measured, and is gone in the end."""
    options = ("--rate", "100", "--duration", "100s", "-b", cluster.bootstrap_servers)
    command = [*COMMAND, "bench", "produce", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=screen.stderr, text=True) as running:
        try:
            screen.let_go()
            while len(lines := re.findall(r"\x1b\[K(measuring [^\r\n]*)\r", screen.shown)) < 3:
                assert screen.watch(), screen.shown
            running.send_signal(signal.SIGINT)
            while screen.watch():
                pass
            out, _ = running.communicate(timeout=PATIENCE_S)
        finally:
            running.kill()
    assert running.returncode == 130
    assert len(set(lines)) == 3
    for line in lines:
        assert re.fullmatch(r"measuring \d+\.\d s: (nothing yet|sent [\d,]+ .*/s\).*)", line)
    assert screen.shown.endswith("\r\x1b[Kinterrupted: these are the figures up to then\r\n")
    assert not re.search(r"measuring [^\r\n]*\r*\n", screen.shown), "each in place of the one before"
    assert re.match(r"\d+ records sent, ", out)


def test_progress_that_cannot_be_shown_ends_nothing(cluster: Cluster, tmp_path: Path) -> None:
    sizes = ("--rate", "100", "--records", "100", "-b", cluster.bootstrap_servers)
    command = [*COMMAND, "bench", "produce", *sizes, "--json", str(tmp_path / "figures.json")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("100 records sent")
    assert json.loads((tmp_path / "figures.json").read_text())["acked"] == 100


def test_a_terminal_that_is_closed_ends_it_with_its_figures(
    cluster: Cluster, screen: Screen, tmp_path: Path
) -> None:
    """As that of a connection that broke: nothing can be said there, and a signal comes."""
    options = ("--rate", "100", "--duration", "100s", "--json", str(tmp_path / "figures.json"))
    command = [*COMMAND, "bench", "produce", *options, "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdout=screen.stderr, stderr=screen.stderr) as running:
        try:
            while "measuring" not in screen.shown:
                assert screen.watch(), screen.shown
            screen.close()
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE_S) == 130
        finally:
            running.kill()
    assert json.loads((tmp_path / "figures.json").read_text())["interrupted"]
    assert topics(cluster) == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(start: Callable[..., Bench], all_gone: AllGone, tmp_path: Path) -> None:
    """With a cluster of its own."""
    running = start("e2e", "--duration", "100s", "--record-size", "1KiB", "--rate", 1_000)
    children = running.children()
    assert sum("tailrace.bench.worker" in line for line in children.values()) == 2
    assert sum(" node " in line for line in children.values()) == 1
    os.kill(running.process.pid, signal.SIGINT)
    code, out, err = running.ended()
    assert code == 130
    assert re.match(r"\d+ records sent and read, ", out)
    assert "interrupted: these are the figures up to then\n" in err
    assert "Traceback" not in err
    all_gone(list(children))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["produce", "e2e"])
def test_ctrl_c_ends_what_sends_and_the_rest_is_verified(
    cluster: Cluster, start: Callable[..., Bench], all_gone: AllGone, mode: str
) -> None:
    running = start(
        mode, "--duration", "100s", "--producers", 2, "--verify", servers=cluster.bootstrap_servers
    )
    children = running.children()
    os.kill(running.process.pid, signal.SIGINT)
    code, out, err = running.ended()
    assert code == 130, err
    assert "interrupted: these are the figures up to then\n" in err
    sent = re.match(r"(\d+) records sent", out)
    assert sent
    assert re.search(r"verified: each of [\d,]+ records? with an acknowledgement .*was read once", out)
    assert int(sent[1]) > 0
    all_gone(list(children))
    assert topics(cluster) == []


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(cluster: Cluster, start: Callable[..., Bench], all_gone: AllGone) -> None:
    """Though a consumer hangs."""
    running = start("e2e", "--duration", "100s", "--rate", 100, "--verify", servers=cluster.bootstrap_servers)
    children = running.children()
    producer, consumer = sorted(children)
    with suspended(consumer):
        os.kill(running.process.pid, signal.SIGINT)
        assert running.process.stderr is not None
        line = ""
        while "verifying" not in line:
            line = running.process.stderr.readline()
        assert line.endswith("; ending, Ctrl-C ends it at once\n")
        os.kill(running.process.pid, signal.SIGINT)
        code, out, err = running.ended()
        all_gone([producer, consumer])
    assert code == 130
    assert "interrupted: these are the figures up to then; nothing is verified\n" in err
    assert re.match(r"\d+ records sent", out)
    assert topics(cluster) == []


def test_a_client_is_killed(cluster: Cluster, start: Callable[..., Bench], all_gone: AllGone) -> None:
    servers = cluster.bootstrap_servers
    running = start("produce", "--duration", "100s", "--rate", 1_000, "--producers", 2, servers=servers)
    children = running.children()
    assert len(children) == 2
    os.kill(max(children), signal.SIGKILL)
    code, out, err = running.ended()
    assert code == 1
    assert re.match(r"\d+ records sent, ", out), "what was measured until then"
    assert re.search(r"Error: producer \d: it ended with SIGKILL", err)
    all_gone(list(children))
    assert topics(cluster) == []


@pytest.mark.slow
def test_a_node_of_its_own_is_killed(start: Callable[..., Bench], tmp_path: Path) -> None:
    """Nobody starts it again: it ends, and what was measured until then is told."""
    files = ("--json", tmp_path / "figures.json", "--report", tmp_path / "report.html")
    running = start("e2e", "--duration", "100s", "--rate", 1_000, "--verify", *files)
    (node,) = [pid for pid, line in running.children().items() if " node " in line]
    os.kill(node, signal.SIGKILL)
    code, out, err = running.ended()
    assert code == 1
    assert re.match(r"\d+ records sent and read", out)
    assert "Error: node 1 has ended, and nobody starts it again; nothing is verified\n" in err
    assert "node-1 ended with SIGKILL" in err
    assert json.loads((tmp_path / "figures.json").read_text())["problem"].startswith("node 1 has ended")
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_as_many_nodes_as_replicas(start: Callable[..., Bench]) -> None:
    """Whatever linger is: who is not measured yet does not wait for it."""
    sizes = ("--records", 1_000, "--linger", 100_000, "--batch-size", "1KiB")
    running = start("produce", "--replication-factor", 2, *sizes, "--json", "-")
    code, out, err = running.ended()
    assert code == 0, err
    figures = json.loads(out)
    spec = figures["spec"]
    assert (spec["replication_factor"], spec["nodes"], spec["flush"]) == (2, 2, "commit")
    assert (spec["records"], spec["batch_bytes"], spec["linger_ms"]) == (1_000, 1024, 100_000)
    assert [server["name"] for server in figures["servers"]] == ["coordinator", "node 1", "node 2"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [("e2e", "--rate", 500), ("produce",)])
def test_a_node_that_stays_away_is_told_of(start: Callable[..., Bench], how: tuple[object, ...]) -> None:
    """And Ctrl-C ends it all the same, twice also what waits to be verified."""
    with Cluster() as cluster:
        running = start(*how, "--duration", "100s", "--verify", servers=cluster.bootstrap_servers)
        running.children()
        cluster.kill(1)
        assert running.process.stderr is not None
        line = ""
        while "producer-1 waits for" not in line:
            line = running.process.stderr.readline()
            assert line, "it has ended"
        assert "no live leader: start the nodes that hold it" in line
        os.kill(running.process.pid, signal.SIGINT)
        while "; ending" not in line:
            line = running.process.stderr.readline()
        os.kill(running.process.pid, signal.SIGINT)
        code, out, err = running.ended()
    assert code == 130
    assert "interrupted: these are the figures up to then; nothing is verified\n" in err
    assert re.match(r"\d+ records sent", out)


def test_records_that_linger_are_told_to_linger(cluster: Cluster, start: Callable[..., Bench]) -> None:
    """So that nobody looks for what stands in the way."""
    options = ("--rate", 10, "--records", 40, "--linger", "4s")
    running = start("produce", *options, servers=cluster.bootstrap_servers)
    code, out, err = running.ended()
    assert code == 0, err
    assert out.startswith("40 records sent")
    waits = "producer-1 waits for records to be acknowledged: no answer so far, and what fills no batch waits"
    assert f"{waits} for 4 s (linger); trying for" in err


def test_a_topic_that_is_deleted_meanwhile(cluster: Cluster, start: Callable[..., Bench]) -> None:
    """What was measured until then is told, but not verified."""
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("t")
        options = ("--topic", "t", "--duration", "100s", "--rate", 1_000, "--verify")
        running = start("e2e", *options, servers=cluster.bootstrap_servers)
        wait_until(lambda: stored(admin, "t") >= 500, "records")
        admin.delete_topic("t")
    code, out, err = running.ended()
    assert code == 1
    assert re.match(r"\d{3,} records sent and read, ", out), out
    assert re.search(r"producer 0 +\d{3,} ", out)
    assert "verified" not in out
    assert re.search(r"Error: \w+ 0: UnknownTopicError: topic 't' .*; nothing is verified\n", err)


def test_the_parent_is_killed(cluster: Cluster, start: Callable[..., Bench], all_gone: AllGone) -> None:
    """It cannot delete its topic any more, but no process of it stays."""
    running = start("latency", "--duration", "100s", servers=cluster.bootstrap_servers)
    children = running.children()
    assert len(children) == 2
    running.process.kill()
    all_gone(list(children))
    with Admin(cluster.bootstrap_servers) as admin:
        for topic in topics(cluster):
            admin.delete_topic(topic)


@pytest.mark.slow
@pytest.mark.parametrize("forgetful", [False, True])
def test_a_node_is_killed(start: Callable[..., Bench], forgetful: bool) -> None:
    """An ephemeral one has forgotten what it had acknowledged, and the verification finds that."""
    with Cluster(ephemeral=forgetful) as cluster, Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("t")
        options = ("--topic", "t", "--rate", 2_000, "--records", 6_000, "--verify")
        running = start("produce", *options, servers=cluster.bootstrap_servers)
        wait_until(lambda: stored(admin, "t") >= 500, "records")
        cluster.kill(1)
        cluster.start(1)
        code, out, err = running.ended()
    if not forgetful:
        assert code == 0, err
        assert "verified: each of 6,000 records with an acknowledgement was read once and in order" in out
        return
    assert code == 1
    assert "verified" not in out
    found = re.search(r"VERIFICATION FAILED: of [\d,]+ acknowledged records ([\d,]+) lost, 0 read more", err)
    assert found, err
    assert int(found[1].replace(",", "")) >= 100
    assert re.search(r"records? \d+( to \d+)? of producer 0: acknowledged, and never read", err)


@pytest.mark.slow
def test_a_topic_that_fails_the_verification_stays(start: Callable[..., Bench]) -> None:
    """What is wrong with it can be looked up."""
    with Cluster(ephemeral=True) as cluster, Admin(cluster.bootstrap_servers) as admin:
        options = ("--rate", 2_000, "--records", 6_000, "--verify")
        running = start("produce", *options, servers=cluster.bootstrap_servers)
        wait_until(lambda: topics(cluster), "the topic")
        (topic,) = topics(cluster)
        wait_until(lambda: stored(admin, topic) >= 500, "records")
        cluster.kill(1)
        cluster.start(1)
        code, _, err = running.ended()
        assert topics(cluster) == [topic]
    assert code == 1
    assert "VERIFICATION FAILED" in err
    assert f"topic {topic} stays, to be looked into; delete it: tailrace topic delete {topic}" in err


def stored(admin: Admin, topic: str) -> int:
    """Records in its only partition."""
    place = TopicPartition(topic, 0)
    found = admin.list_offsets({place: Admin.LATEST})[place]
    return 0 if found is None else found.offset


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("produce", "--record-size", "0"), "--record-size is 0; it is 1 to"),
        (("latency", "--record-size", "1kibi"), "'1kibi' is no size"),
        (("latency", "--record-size", "10"), "--record-size is 10; it is 24 (a header"),
        (("produce", "--record-size", "1.1KiB"), "'1.1KiB' is no whole number of bytes, but 1,126.4"),
        (("produce", "--records", "many"), "'many' is no count"),
        (("produce", "--rate", "fast"), "'fast' is no count"),
        (("produce", "--rate", "nan"), "--rate is nan; it is more than 0"),
        (("produce", "--records", "0"), "--records is 0; it is more than 0"),
        (("produce", "--producers", "-1"), "--producers is -1; it is 1 to"),
        (("produce", "--duration", "soon"), "'soon' is no time"),
        (("e2e", "--consumers", "2"), "give at least 2 partitions"),
        (("consume", "--rate", "5"), "No such option"),
        (("produce", "--batch-size", "0"), "--batch-size is 0"),
        (("produce", "--report", "/nowhere/report.html"), "there is no folder /nowhere"),
        (("produce", "--report", "one", "--json", "./one"), "--json and --report both name one"),
        (("produce", "--topic", "t"), "--topic is one of a running cluster"),
        (("produce", "-b", "localhost:1", "--nodes", "1"), "--nodes is for a cluster that is started here"),
        (("e2e", "-b", "localhost:1", "--topic", "t", "--partitions", "1"), "t has its own"),
        (("produce", "--consumers", "1"), "--consumers is for what reads, as --verify does"),
        (("produce", "--poll"), "--poll is for what reads, as --verify does"),
        (("consume", "--topic", "mine"), "--topic is one of a running cluster"),
        *(
            (
                ("consume", "-b", "localhost:1", "--topic", "mine", *option),
                f"{option[0]} is for what is written: consume only reads what mine holds",
            )
            for option in (
                ("--producers", "1"),
                ("--record-size", "9"),
                ("--acks", "1"),
                ("--compression", "lz4"),
                ("--keys", "2"),
                ("--batch-size", "9"),
                ("--linger", "0"),
                ("--one-by-one",),
                ("--verify",),
            )
        ),
        (("consume", "-b", "localhost:1", "--topic", "mine", "--partitions", "1"), "mine has its own"),
        (("produce", "--replication-factor", "3", "--nodes", "2"), "needs as many nodes: --nodes 3"),
        (("produce", "--replication-factor", "0"), "--replication-factor is 0; it is 1 to 16"),
        (("e2e", "-b", "localhost:1", "--topic", "t", "--replication-factor", "1"), "t has its own"),
        (("produce", "--report", "-"), "name a file for it"),
        (("sum",), "No such command 'sum'"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *args]) == 2
    assert message in capsys.readouterr().err


def test_without_the_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    assert run(["bench", "produce"]) == 1
    assert "pip install 'tailrace[bench]'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are shown all the same."""
    for option in ("--json", "--report"):
        arguments = ["bench", "produce", "--records", "10", "-b", cluster.bootstrap_servers]
        assert run([*arguments, option, "/dev/full"]) == 1
        said = capsys.readouterr()
        assert said.out.startswith("10 records sent")
        assert "'/dev/full': no space left" in said.err


def test_a_file_that_cannot_be_made(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path is told once."""
    file = tmp_path / "report.html"
    file.symlink_to(tmp_path / "nowhere" / "report.html")
    arguments = ["bench", "produce", "--records", "10", "-b", cluster.bootstrap_servers]
    assert run([*arguments, "--report", str(file)]) == 1
    assert f"'{file}': no such file or directory\n" in capsys.readouterr().err


def test_without_acknowledgements(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "produce", "--records", "10", "--acks", "0", "-b", cluster.bootstrap_servers]
    assert run(arguments) == 0
    assert "until it was handed to the connection" in capsys.readouterr().out


@pytest.mark.slow
def test_what_opens_connections_does_not_count(tmp_path: Path) -> None:
    """One record to each partition, which with acks=0 may be stored some time after it is sent."""
    control = tmp_path / "control"
    control.write_text("delay 200")
    sizes = ("--acks", "0", "--records", "50", "--partitions", "4")
    done = subprocess.run(
        [*COMMAND, "bench", "consume", *sizes, "--json", "-"],
        env=dict(recording.environment(control=control), TMPDIR=str(tmp_path)),
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert json.loads(done.stdout)["read"] == 50


def test_no_cluster_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "produce", "-b", "127.0.0.1:1", "--timeout", "0.2"]) == 1
    assert "connection refused" in capsys.readouterr().err


def test_a_rate_that_is_too_high_is_told_of(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "produce", "--rate", "1e12", "--duration", "10ms", "-b", cluster.bootstrap_servers]
    assert run(arguments) == 0
    assert re.search(
        r"\ndue, and not sent: [\d,]+ records, in no latency; 1,000,000,000,000 a second were too many\n",
        capsys.readouterr().out,
    )
