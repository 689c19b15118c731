"""`tailrace group` and `tailrace topic alter` against a real cluster."""

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.cli.main import run
from tailrace.testing import Cluster

from ..patience import wait_until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=1) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("orders", partitions=2)
        with Producer(cluster.bootstrap_servers) as producer:
            for number in range(10):
                producer.send(
                    "orders", str(number).encode(), partition=number % 2, timestamp_ms=1_000 + number
                )
        yield cluster


@pytest.fixture
def command(cluster: Cluster, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def command(*args: str) -> tuple[int, str, str]:
        code = run([*args, "-b", cluster.bootstrap_servers])
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return command


def read(cluster: Cluster, group_id: str, count: int) -> None:
    """Read so many records, and commit them."""
    options: dict[str, Any] = {"group_id": group_id, "auto_offset_reset": "earliest", "client_id": "reader"}
    with Consumer("orders", bootstrap_servers=cluster.bootstrap_servers, **options) as consumer:
        got = 0
        while got < count:
            got += sum(map(len, consumer.poll(20_000, max_records=count - got).values()))


def offsets(cluster: Cluster, group_id: str) -> list[int]:
    with Admin(cluster.bootstrap_servers) as admin:
        stored = admin.list_group_offsets(group_id)
    return [stored[TopicPartition("orders", partition)].offset for partition in range(2)]


def test_list_and_describe(cluster: Cluster, command: Run) -> None:
    read(cluster, "billing", 10)
    code, out, _ = command("group", "list")
    assert code == 0
    assert ["billing", "empty", "0"] in [line.split()[:3] for line in out.splitlines()]
    code, out, _ = command("group", "describe", "billing", "--json")
    described = json.loads(out)
    assert (code, described["state"], described["lag"]) == (0, "empty", 0)
    assert [
        (p["partition"], p["offset"], p["log_end_offset"], p["lag"]) for p in described["partitions"]
    ] == [
        (0, 5, 5, 0),
        (1, 5, 5, 0),
    ]


def test_members_are_shown(cluster: Cluster, command: Run) -> None:
    without_name: dict[str, Any] = {"group_id": "live", "bootstrap_servers": cluster.bootstrap_servers}
    with Consumer("orders", client_id="reader", **without_name):
        _, out, _ = command("group", "describe", "live")
        assert "1 member" in out
        assert "lag in all: 0" in out
        assert len([line for line in out.splitlines() if "reader (" in line]) == 2
        with Consumer("orders", **without_name):
            _, out, _ = command("group", "describe", "live")
            (idle,) = [line.split() for line in out.splitlines() if line.split()[1:3] == ["-", "-"]]
            assert "2 members" in out
            assert f"-{os.getpid()}-" in idle[6], "a default name tells the process"
            assert idle[-1] == platform.node()
        code, _, err = command("group", "delete", "live", "--execute")
        assert code == 1
        assert "1 member" in err
        code, _, err = command("group", "reset-offsets", "live", "--to-earliest", "--execute")
        assert code == 1
        assert "stop them first" in err


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (["--to-earliest"], [0, 0]),
        (["--to-latest"], [5, 5]),
        (["--to-offset", "3"], [3, 3]),
        (["--to-offset", "99"], [5, 5]),
        (["--to-timestamp", "1004"], [2, 2]),
        (["--to-timestamp", "@1970-01-01T00:00:01.006"], [3, 3]),
        (["--to-timestamp", "-1h"], [5, 5]),
        (["--by-duration", "1h"], [5, 5]),
        (["--shift-by", "-2"], [3, 3]),
        (["--shift-by", "-99"], [0, 0]),
        (["--to-earliest", "--topic", "orders:1"], [5, 0]),
    ],
)
def test_reset(cluster: Cluster, command: Run, way: list[str], expected: list[int]) -> None:
    group_id = "reset-" + "".join(filter(str.isalnum, "".join(way)))
    read(cluster, group_id, 10)
    code, out, err = command("group", "reset-offsets", group_id, *way)
    assert code == 0
    assert "NEW-OFFSET" in out
    assert "--execute" in err
    assert offsets(cluster, group_id) == [5, 5], "a dry run changes nothing"
    code, out, _ = command("group", "reset-offsets", group_id, *way, "--execute", "--json")
    assert code == 0
    assert all(json.loads(line)["done"] for line in out.splitlines())
    assert offsets(cluster, group_id) == expected


def test_delete(cluster: Cluster, command: Run) -> None:
    read(cluster, "doomed", 10)
    assert command("group", "delete", "doomed")[:2] == (
        0,
        "doomed: would be deleted (--execute does it), with 2 offsets\n",
    )
    assert offsets(cluster, "doomed") == [5, 5]
    assert command("group", "delete", "doomed", "--execute")[0] == 0
    code, _, err = command("group", "describe", "doomed")
    assert code == 1
    assert "no group 'doomed'" in err


def test_similar_names(cluster: Cluster, command: Run) -> None:
    read(cluster, "invoices", 10)
    _, _, err = command("group", "describe", "invoice")
    assert "did you mean 'invoices'?" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of --to-earliest"),
        (["--to-earliest", "--shift-by", "1"], "give one of --to-earliest"),
        (["--to-earliest", "--to-latest"], "give one of --to-earliest"),
        (["--by-duration", "soon"], "--by-duration"),
        (["--to-timestamp", "soon"], "'soon' is no time: write milliseconds"),
        (["--to-earliest", "--topic", "orders:7"], "there is no 7"),
        (["--to-earliest", "--topic", "or ders"], "write TOPIC"),
        (["--to-earliest"], "there is no group 'nobody'"),
        (["--shift-by", "1", "--topic", "orders"], "no offset that could be shifted"),
    ],
)
def test_wrong_resets(command: Run, arguments: list[str], said: str) -> None:
    code, _, err = command("group", "reset-offsets", "nobody", *arguments)
    assert code in (1, 2)
    assert said in err


def test_alter_topic(cluster: Cluster, command: Run) -> None:
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("grows", partitions=1, config={"retention_ms": 60_000})
    code, out, _ = command(
        "topic", "alter", "grows", "-p", "3", "-c", "retention_bytes=1GiB", "--default", "retention_ms"
    )
    assert code == 0
    assert out.startswith("grows has 3 partitions; retention_ms=-1, retention_bytes=1073741824")
    with Producer(cluster.bootstrap_servers) as producer:
        assert producer.send("grows", b"x", partition=2).result(20).offset == 0
    assert "nothing to alter" in command("topic", "alter", "grows")[2]
    code, _, err = command("topic", "alter", "grows", "-p", "2")
    assert code == 1
    assert "3" in err
    assert command("topic", "alter", "grew", "-p", "9")[0] == 1


def test_consume_as_a_group(cluster: Cluster, command: Run) -> None:
    """Also of a batch that is printed in part: the group goes on after the last line."""
    code, first, _ = command("consume", "-g", "printing", "-n", "3", "orders")
    assert (code, len(first.split())) == (0, 3)
    code, rest, _ = command("consume", "-g", "printing", "-n", "7", "-r", "ord.*")
    assert code == 0
    assert sorted(map(int, (first + rest).split())) == list(range(10))
    assert sum(offsets(cluster, "printing")) == 10


def test_consume_as_a_group_to_the_end(cluster: Cluster, command: Run) -> None:
    """To what the group has to read, whoever reads it: another member's part is waited for."""
    options: dict[str, Any] = {"group_id": "ending", "auto_offset_reset": "earliest"}
    code, out, _ = command("consume", "-g", "ending", "-e", "-n", "4", "orders")
    assert (code, len(out.split())) == (0, 4)
    with Consumer("orders", bootstrap_servers=cluster.bootstrap_servers, **options) as other:
        other.poll(0)

        def read_slowly() -> None:
            with Admin(cluster.bootstrap_servers) as admin:
                while sum(stored.offset for stored in admin.list_group_offsets("ending").values()) < 10:
                    other.poll(20, max_records=1)
                    other.commit()

        reader = threading.Thread(target=read_slowly)
        reader.start()
        code, rest, _ = command("consume", "-g", "ending", "-e", "-r", "ord.*")
        assert offsets(cluster, "ending") == [5, 5]
        reader.join()
    assert code == 0
    assert set(map(int, (out + rest).split())) <= set(range(10))
    assert command("consume", "-g", "ending", "-e", "orders")[:2] == (0, ""), "nothing is left"
    assert command("consume", "-g", "late", "-e", "-o", "end", "orders")[:2] == (0, "")


def test_what_is_printed_is_committed_when_nothing_more_comes(cluster: Cluster) -> None:
    command = [sys.executable, "-P", "-m", "tailrace", "consume", "-g", "idle", "-o", "start", "orders"]
    with (
        subprocess.Popen(
            [*command, "-b", cluster.bootstrap_servers], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
        Admin(cluster.bootstrap_servers) as admin,
    ):
        assert process.stdout is not None
        try:
            for _ in range(10):
                assert process.stdout.readline()
            wait_until(
                lambda: sum(at.offset for at in admin.list_group_offsets("idle").values()) == 10,
                "it is committed",
            )
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "5", "orders"], "reset-offsets"),
        (["-p", "1", "orders"], "leave out -p"),
        (["-r", "(", "orders"], "is no regular expression"),
    ],
)
def test_what_a_group_cannot_be_told(command: Run, arguments: list[str], said: str) -> None:
    code, _, err = command("consume", "-g", "g", *arguments)
    assert code == 2
    assert said in err


def test_topics_by_pattern(command: Run) -> None:
    code, out, _ = command("consume", "-r", "-e", "or.*s")
    assert (code, len(out.split())) == (0, 10)
    code, _, err = command("consume", "-r", "-e", "nothing-.*")
    assert code == 1
    assert "no topic matches" in err


def test_groups_by_pattern(cluster: Cluster, command: Run) -> None:
    for name in ("west-1", "west-2", "east-1"):
        read(cluster, name, 1)
    assert [line.split()[0] for line in command("group", "list", "-r", "west-.")[1].splitlines()] == [
        "GROUP",
        "west-1",
        "west-2",
    ]
    assert [line.split()[0] for line in command("group", "list", "east-1")[1].splitlines()][1:] == ["east-1"]
    assert "no group 'east-2'" in command("group", "list", "east-2")[2]
    assert command("group", "delete", "-r", "west-.*", "--execute")[0] == 0
    code, _, err = command("group", "delete", "-r", "west-.*")
    assert (code, "no group matches west-.*" in err) == (1, True)


def test_nothing_is_deleted_if_one_cannot_be(cluster: Cluster, command: Run) -> None:
    read(cluster, "spare", 10)
    options = {"bootstrap_servers": cluster.bootstrap_servers, "group_id": "busy"}
    with Consumer("orders", **options):
        code, _, said = command("group", "delete", "spare", "busy", "--execute")
        assert (code, "group 'busy' has 1 member: stop them first" in said) == (1, True)
        code, _, said = command("group", "reset-offsets", "busy", "--to-earliest", "--topic", "orders")
        assert (code, "group 'busy' has 1 member" in said) == (1, True), "also as a dry run"
    assert offsets(cluster, "spare") == [5, 5]


def test_what_a_reset_says_besides(cluster: Cluster, command: Run) -> None:
    read(cluster, "beside", 10)
    code, _, said = command("group", "reset-offsets", "beside", "--shift-by", "-7")
    assert (
        code,
        "2 partitions: the wanted offset lies outside the log, its nearer end is taken" in said,
    ) == (0, True)
    code, _, said = command("group", "reset-offsets", "unheard-of", "--to-latest", "--topic", "orders")
    assert (code, "there is no group 'unheard-of'" in said, "--execute makes it" in said) == (0, True, True)
    code, _, said = command("group", "reset-offsets", "unheard-of", "--to-latest")
    assert (code, "there is no group 'unheard-of'" in said) == (1, True)


def test_more_offsets_than_one_request_takes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.client.group_admin.PARTITIONS_PER_REQUEST_MAX", 1)
    places = [TopicPartition("orders", number) for number in range(2)]
    with Admin(cluster.bootstrap_servers) as admin:
        admin.reset_group_offsets("many", dict.fromkeys(places, 3))
        assert {
            place: each.offset for place, each in admin.list_group_offsets("many").items()
        } == dict.fromkeys(places, 3)
