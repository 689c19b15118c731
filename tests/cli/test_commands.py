"""Topics, produce, consume and cluster status on a real cluster, by the command alone."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Producer
from tailrace.protocol.limits import RECORD_BYTES_MAX
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended

COMMAND = (sys.executable, "-P", "-m", "tailrace")

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_numbers = itertools.count()
TIMESTAMP = time.time_ns() // 1_000_000


@pytest.fixture
def topic(cluster: Cluster, tailrace: Run) -> str:
    """A new topic with two partitions."""
    name = f"topic-{next(_numbers)}"
    tailrace("topic", "create", name, "-p", 2)
    return name


@pytest.fixture(scope="module")
def ten(cluster: Cluster) -> str:
    """A topic to read, with the numbers 0 to 9 in partition 0, and a to c in partition 1."""
    with Admin(cluster.bootstrap_servers) as admin, Producer(cluster.bootstrap_servers) as producer:
        admin.create_topic("ten", partitions=2)
        producer.send_many("ten", [b"%d" % number for number in range(10)], partition=0)
        producer.send_many("ten", [b"a", b"b", b"c"], partition=1, timestamps_ms=TIMESTAMP)
    return "ten"


def objects(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# ------------------------------------------------------------------------ topic


def test_a_topic_is_created_listed_described_and_deleted(cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("topic", "create", "life", "-p", 3, "-c", "retention_ms=9").stdout == (
        "created topic life with 3 partitions\n"
    )
    assert ["life", "3", "1"] in [line.split() for line in tailrace("topic", "list").stdout.splitlines()]
    described = tailrace("topic", "describe", "life").stdout.splitlines()
    assert "retention_ms=9" in described[0]
    assert [line.split()[0] for line in described[2:]] == ["0", "1", "2"]
    assert (
        tailrace("topic", "delete", "life").stdout
        == "would delete topic life: 3 partitions, 0 records, 0 B\n"
    )
    assert "life" in tailrace("topic", "list").stdout
    assert tailrace("topic", "delete", "life", "--execute").stdout.startswith("deleted topic life: ")
    assert "life" not in tailrace("topic", "list").stdout


def test_topics_for_programs(cluster: Cluster, tailrace: Run) -> None:
    (created,) = objects(tailrace("topic", "create", "made", "-p", 2, "--json"))
    assert (created["name"], created["replication_factor"], len(created["partitions"])) == ("made", 1, 2)
    assert created in objects(tailrace("topic", "list", "--json"))
    tailrace("produce", "made", "-p", 1, given="x\ny\n")
    (described,) = objects(tailrace("topic", "describe", "made", "--json"))
    assert [part["high_watermark"] for part in described["partitions"]] == [0, 2]
    assert described["partitions"][1]["size_bytes"] > 0
    (deleted,) = objects(tailrace("topic", "delete", "made", "--execute", "--json"))
    assert (deleted["deleted"], deleted["records"]) == (True, 2)


def test_what_the_cluster_refuses_is_one_line(topic: str, tailrace: Run) -> None:
    for args, reason in [
        (
            ("topic", "create", topic),
            "exists; use it as it is, choose another name, or delete it: tailrace ",
        ),
        (("topic", "create", "no spaces"), "topic name"),
        (("topic", "create", "t", "-c", "retention=1"), "unknown topic config"),
        (("topic", "create", "t", "-r", "17"), "replication_factor is 17"),
        (("topic", "describe", topic.replace("o", "0")), f"did you mean '{topic}'"),
        (("topic", "delete", "nothing-like-it", "--execute"), "does not exist"),
        (("consume", "nothing-like-it"), "does not exist"),
        (("consume", topic, "-p", "7"), "7"),
    ]:
        done = tailrace(*args, code=1)
        assert reason in done.stderr
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_switches_are_printed_as_they_are_given(topic: str, tailrace: Run) -> None:
    altered = tailrace("topic", "alter", topic, "-c", "unclean_leader_election=true").stdout
    assert "unclean_leader_election=true" in altered
    tailrace("topic", "alter", topic, "--default", "unclean_leader_election")
    assert "unclean_leader_election=false" in tailrace("topic", "describe", topic).stdout


@pytest.mark.parametrize("given", [("--default", "partitions"), ("-c", "partitions=3")])
def test_how_many_partitions_is_no_setting(tailrace: Run, given: tuple[str, str]) -> None:
    assert "is no setting: --partitions says it" in tailrace("topic", "alter", "t", *given, code=2).stderr


def test_settings_have_units(cluster: Cluster, tailrace: Run) -> None:
    settings = ("-c", "retention_ms=7d", "-c", "retention.bytes=1GiB")
    (created,) = objects(tailrace("topic", "create", "units", *settings, "--json"))
    assert created["config"]["retention_ms"] == 7 * 86_400_000
    assert created["config"]["retention_bytes"] == 2**30


# ---------------------------------------------------------------------- produce


def test_lines_of_a_pipe(topic: str, tailrace: Run) -> None:
    done = tailrace("produce", topic, given="one\n\nthree\nno end")
    assert done.stderr.startswith(f"produced 4 records (14 B) to {topic} in ")
    assert done.stdout == ""
    assert sorted(tailrace("consume", topic, "-e").stdout.split("\n")) == ["", "", "no end", "one", "three"]


def test_lines_of_a_file(topic: str, tailrace: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    lines = [f"line {number} {'x' * 90}" for number in range(50_000)]
    file.write_text("\n".join(lines))
    (figures,) = objects(tailrace("produce", topic, file, "-p", 1, "--compression", "lz4", "--json"))
    assert (figures["topic"], figures["records"]) == (topic, 50_000)
    assert tailrace("consume", topic, "-e").stdout.splitlines() == lines


def test_nothing_produces_nothing(topic: str, tailrace: Run) -> None:
    assert tailrace("produce", topic, given="").stderr.startswith("produced 0 records")


@pytest.mark.parametrize("compression", ["gzip", "snappy", "zstd"])
def test_compression(topic: str, tailrace: Run, compression: str) -> None:
    given = "the same again\n" * 1_000
    tailrace("produce", topic, "--compression", compression, "-p", 0, given=given)
    assert tailrace("consume", topic, "-e").stdout == given
    (described,) = objects(tailrace("topic", "describe", topic, "--json"))
    assert sum(part["size_bytes"] for part in described["partitions"]) < len(given) / 2


def test_keys(topic: str, tailrace: Run) -> None:
    tailrace("produce", topic, "-k", "fixed", given="1\n2\n")
    tailrace("produce", topic, "-K", "::", given="mine::3\nnone\n::4\n")
    got = [(each["key"], each["value"]) for each in objects(tailrace("consume", topic, "-e", "--json"))]
    assert sorted(got, key=str) == [("", "4"), ("fixed", "1"), ("fixed", "2"), ("mine", "3"), (None, "none")]
    tailrace("produce", topic, "-K", r"\t", "-p", 0, given="tab\there\n")
    assert ("tab", "here") in [
        (each["key"], each["value"]) for each in objects(tailrace("consume", topic, "-e", "--json"))
    ]
    partitions = {
        each["partition"]
        for each in objects(tailrace("consume", topic, "-e", "--json"))
        if each["key"] == "fixed"
    }
    assert len(partitions) == 1, "one key, one partition"


def test_a_misspelt_topic_is_told_before_the_input_is_read(topic: str, cluster: Cluster) -> None:
    command = [*COMMAND, "produce", topic.replace("o", "0"), "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.wait(PATIENCE_S) == 1
        error = process.stderr.read()
    assert f"did you mean '{topic}'" in error
    assert "stopped" not in error


def test_what_cannot_be_produced(topic: str, tailrace: Run, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"fine\n" + b"x" * (RECORD_BYTES_MAX + 1) + b"\n")
    for args, reason in [
        ((topic.replace("o", "0"),), f"did you mean '{topic}'"),
        ((topic, "-p", "9"), "9"),
        (
            (topic, large),
            "line 2 is too long: 8,388,609 bytes, at most 8,388,608 are possible; "
            "stopped after 1 record, 1 record known to be stored",
        ),
    ]:
        done = tailrace("produce", *args, code=1, given="x\n")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
    assert tailrace("consume", topic, "-e").stdout == "fine\n"
    assert "exclude each other" in tailrace("produce", topic, "-k", "a", "-K", "b", code=2).stderr
    assert "No such file" in tailrace("produce", topic, tmp_path / "none", code=2).stderr


@pytest.mark.slow
def test_a_cluster_that_cannot_store_is_not_waited_for_longer_than_told(tailrace: Run) -> None:
    with Cluster() as cluster:
        where = ("-b", cluster.bootstrap_servers)
        tailrace("topic", "create", "t", *where)
        cluster.kill(1)
        started = time.monotonic()
        done = tailrace("produce", "t", "--timeout", 3, *where, given="x\n", code=1)
        assert time.monotonic() - started < 3 + BUSY_S
        meanwhile, error = done.stderr.splitlines()
        assert "waits for 1 batch to be stored: " in meanwhile
        assert error.startswith("Error: 1 record")
        assert error.endswith("; stopped after 1 record, 0 records known to be stored")
        assert "3 s (--timeout)" in error
        assert "_ms" not in done.stderr


def test_ctrl_c_delivers_what_was_read(topic: str, cluster: Cluster, tailrace: Run) -> None:
    command = [*COMMAND, "produce", topic, "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"typed\n")
        process.stdin.flush()
        assert tailrace("consume", topic, "-n", 1).stdout == "typed\n", "at once, not at the end of the input"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr.read().startswith(b"produced 1 record (")


# ---------------------------------------------------------------------- consume


@pytest.mark.parametrize(
    ("offsets", "numbers", "letters"),
    [
        ("start", "0123456789", "abc"),
        ("end", "", ""),
        ("7", "789", ""),
        ("+2", "23456789", "c"),
        ("-2", "89", "bc"),
        ("-99", "0123456789", "abc"),
        ("2:4", "23", "c"),
        (":-8", "01", ""),
        ("-1:end", "9", "c"),
        ("@0", "0123456789", "abc"),
        ("@-1h", "0123456789", "abc"),
        ("@9999999999999", "", ""),
    ],
)
def test_offsets(ten: str, cluster: Cluster, tailrace: Run, offsets: str, numbers: str, letters: str) -> None:
    got = tailrace("consume", ten, "-o", offsets, "-e", "-f", "%p%s ").stdout.split()
    assert "".join(each[1] for each in got if each[0] == "0") == numbers
    assert "".join(each[1] for each in got if each[0] == "1") == letters
    assert len(got) == len(numbers) + len(letters)


def test_a_range_ends_by_itself(ten: str, cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("consume", ten, "-o", "3:5", "-p", 0).stdout == "3\n4\n"


def test_counts_and_partitions(ten: str, cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("consume", ten, "-p", 0, "-n", "0.003k").stdout == "0\n1\n2\n"
    assert tailrace("consume", ten, "-p", 1, "-n", 0).stdout == ""
    assert tailrace("consume", ten, "-p", 1, "-o", "-1", "-n", 1).stdout == "c\n"
    assert len(tailrace("consume", ten, "-p", 0, "-p", 1, "-e").stdout.split()) == 13


def test_several_topics(ten: str, cluster: Cluster, tailrace: Run) -> None:
    tailrace("topic", "create", "other")
    tailrace("produce", "other", given="z\n")
    got = tailrace("consume", ten, "other", "-e", "-f", r"%t\n").stdout.split()
    assert sorted(got) == ["other", *["ten"] * 13]


def test_records_for_programs(ten: str, cluster: Cluster, tailrace: Run) -> None:
    record = objects(tailrace("consume", ten, "-p", 1, "-o", "2", "-n", 1, "--json"))[0]
    assert record == {
        "topic": ten, "partition": 1, "offset": 2, "timestamp": TIMESTAMP, "key": None, "value": "c"
    }  # fmt: skip


def test_what_is_produced_later_is_printed_at_once(topic: str, cluster: Cluster, tailrace: Run) -> None:
    command = [*COMMAND, "consume", topic, "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in ("early\n", "late\n"):
            tailrace("produce", topic, given=line)
            assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr.read() == ""


def test_a_reader_that_has_enough_ends_it_quietly(topic: str, cluster: Cluster, tailrace: Run) -> None:
    tailrace("produce", topic, given="x" * 100 + "\n" + "y\n" * 100_000)
    command = [*COMMAND, "consume", topic, "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize("more", [(), ("-g", "reader-is-gone")])
def test_a_reader_that_is_gone_ends_it_with_nothing_to_print(
    topic: str, cluster: Cluster, tailrace: Run, more: tuple[str, ...]
) -> None:
    tailrace("produce", topic, given="only\n")
    command = [*COMMAND, "consume", topic, "-o", "start", *more, "-b", cluster.bootstrap_servers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"only\n"
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "args", [("consume", "ten", "-e"), ("topic", "list"), ("cluster", "status", "--json")]
)
def test_output_that_does_not_fit_is_one_line(ten: str, cluster: Cluster, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *args, "-b", cluster.bootstrap_servers],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "Error: no space left on device\n")


# --------------------------------------------------------------- cluster status


def test_cluster_status(ten: str, cluster: Cluster, tailrace: Run) -> None:
    lines = [line.split() for line in tailrace("cluster", "status").stdout.splitlines()]
    assert lines[0][0] == "cluster"
    assert [line[:2] for line in lines if line and line[0] in ("1", "2")] == [["1", "alive"], ["2", "alive"]]
    assert [ten, "2", "0", "0", "13"] in [line[:5] for line in lines]
    (status,) = objects(tailrace("cluster", "status", "--json"))
    assert [node["alive"] for node in status["nodes"]] == [True, True]
    assert all(0 < node["used_bytes"] < node["quota_bytes"] for node in status["nodes"])
    (known,) = [each for each in status["topics"] if each["name"] == ten]
    assert (known["partitions"], known["offline_partitions"], known["records"]) == (2, 0, 13)


@pytest.mark.slow
def test_cluster_status_while_nodes_hang_or_are_dead(tailrace: Run) -> None:
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster:
        where = ("-b", cluster.bootstrap_servers)
        tailrace("topic", "create", "t", "-p", 2, *where)
        with suspended(cluster.pid(1)):
            hanging, _ = objects(tailrace("cluster", "status", "--json", *where))[0]["nodes"]
        assert hanging["error"] or not hanging["alive"]
        cluster.kill(1)
        while objects(tailrace("cluster", "status", "--json", *where))[0]["nodes"][0]["alive"]:
            pass
        lines = [line.split() for line in tailrace("cluster", "status", *where).stdout.splitlines()]
        assert [line[:2] for line in lines if line and line[0] in ("1", "2")] == [
            ["1", "dead"],
            ["2", "alive"],
        ]
        assert ["t", "2", "1", "0"] in [line[:4] for line in lines], "one partition is offline"


# ---------------------------------------------------------------- cluster ready


def test_cluster_ready(cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("cluster", "ready", "--nodes", 2).stdout == (
        "ready: 2 nodes alive, every partition has a leader\n"
    )
    (ready,) = objects(tailrace("cluster", "ready", "--json"))
    assert ready["nodes"] == 2
    late = tailrace("cluster", "ready", "--nodes", 3, "--timeout", "2s", code=1)
    assert late.stderr == "Error: not ready within 2 s: 2 nodes are alive, 3 are needed\n"
    assert late.stdout == ""


@pytest.mark.slow
def test_a_partition_without_a_leader(tailrace: Run) -> None:
    """The cluster is not ready; the others are read, unless the ends of all are asked for."""
    with Cluster(nodes=2) as cluster:
        where = ("-b", cluster.bootstrap_servers)
        tailrace("cluster", "ready", "--nodes", 2, *where)
        tailrace("topic", "create", "t", "-p", 2, *where)
        with Admin(cluster.bootstrap_servers) as admin:
            led = {each.partition: each.leader for each in admin.describe_topic("t").partitions}
            (here,) = [number for number, leader in led.items() if leader == 2]
            tailrace("produce", "t", "-p", here, *where, given="here\n")
            cluster.kill(1)
            wait_until(lambda: not all(node.alive for node in admin.describe_cluster().nodes), "it is dead")
        done = tailrace("cluster", "ready", "--timeout", "2s", *where, code=1)
        assert "has no live leader" in done.stderr
        done = tailrace("consume", "t", "-n", 1, *where)
        assert done.stdout == "here\n"
        gone = f"t-{1 - here}: there is no live leader while node 1 is down: start it"
        assert done.stderr == f"{gone}; the other partitions are read meanwhile\n"
        done = tailrace("consume", "t", "-e", "--timeout", "2s", *where, code=1)
        assert done.stderr.endswith(f"Error: {gone}\n")
