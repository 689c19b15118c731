"""`tailrace run`: handlers of modules, progress for people and programs, what is said of bad ones."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace import Admin, Consumer, Producer
from tailrace.testing import Cluster

from .conftest import COMMAND, Run

SOON = ("--commit-interval-ms", "50")
MODULE = """
import os

def shout(record):
    return record.value.upper()

def fail(record):
    raise ZeroDivisionError("no")

def total(batch, state):
    state.put(b"total", str(int(state.get(b"total") or 0) + sum(batch.values)).encode())

async def later(record):
    return record.value

print("a module is imported")

def tell(record):
    print("a handler has", record.value)

def die_once(record):
    if not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), 9)

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "handlers.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def words(cluster: Cluster) -> str:
    """A topic of ten words, and one for what is made of them."""
    with Admin(cluster.bootstrap_servers) as admin:
        name = f"words-{len(admin.list_topics())}"
        admin.create_topic(name, partitions=2)
        admin.create_topic(f"{name}-out")
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send_many(name, [b"%d" % number for number in range(10)])
    return name


def test_to_the_end(cluster: Cluster, tailrace: Callable[..., object], folder: Path, words: str) -> None:
    options = ("-t", words, "-g", words, "-n", 2, "--output-topic", f"{words}-out", "--exit", *SOON)
    done = tailrace("run", "handlers:shout", *options)
    assert "10 records, " in done.stderr  # type: ignore[attr-defined]
    assert "0 workers running" in done.stderr  # type: ignore[attr-defined]
    with Consumer(
        f"{words}-out", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        found = [record.value for _, record in zip(range(10), consumer, strict=False)]
    assert sorted(found) == [b"%d" % number for number in range(10)]
    again = json.loads(tailrace("run", "handlers:shout", *options, "--json").stdout.splitlines()[-1])  # type: ignore[attr-defined]
    assert (again["event"], again["records"]) == ("ended", 0)
    assert len(again["workers"]) == 2


def test_what_handlers_print(tailrace: Run, folder: Path, words: str) -> None:
    options = ("-t", words, "-n", 1, "--exit", *SOON)
    printed = tailrace("run", "handlers:tell", *options, "-g", f"{words}-p").stdout.splitlines()
    assert sorted(printed) == [*(f"a handler has b'{n}'" for n in range(10)), "a module is imported"]
    done = tailrace("run", "handlers:tell", *options, "-g", f"{words}-j", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()][-1]["event"] == "ended"
    assert done.stderr.count("a handler has") == 10


def test_counts_are_said_to_be_too_low_where_workers_died(tailrace: Run, folder: Path, words: str) -> None:
    options = ("-t", words, "-g", f"{words}-d", "-n", 1, "--exit", *SOON)
    last = tailrace("run", "handlers:die_once", *options).stderr.splitlines()[-1]
    assert "10 records, " in last
    assert ", 1 restart, " in last
    assert last.endswith(" s; what workers did just before they died is not counted")


def test_batches_and_state(tailrace: Callable[..., object], folder: Path, words: str) -> None:
    from tailrace import read_local_state

    tailrace(
        "run", "handlers:total", "-t", words, "-g", f"{words}-s", "-n", 2, "-e", "--batches", *SOON,
        "--value-deserializer", "json", "--local-state", folder / "state",
    )  # fmt: skip
    assert sum(int(entry.value) for entry in read_local_state(folder / "state")) == 45


def test_what_fails_for_good(tailrace: Callable[..., object], folder: Path, words: str) -> None:
    done = tailrace("run", "handlers:fail", "-t", words, "-g", f"{words}-f", "--retries", 0, "--exit", code=1)
    assert "ZeroDivisionError: no" in done.stderr  # type: ignore[attr-defined]
    assert "dead_letter_topic" in done.stderr  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("handlers", "write module:function"),
        ("nowhere:f", "cannot be imported: No module named 'nowhere'"),
        ("./handlers.py:shout", "write handlers:shout"),
        ("broken:f", "cannot be imported: ZeroDivisionError"),
        ("handlers:later", "does nothing before it is awaited"),
        ("handlers:shoud", "did you mean 'shout'"),
        ("handlers:number", "cannot be called"),
        ("handlers:total", "is total(batch, state), and is called with (record)"),
    ],
)
def test_handlers_that_are_none(
    tailrace: Callable[..., object], folder: Path, handler: str, message: str
) -> None:
    assert message in tailrace("run", handler, "-t", "t", "-g", "g", code=2).stderr  # type: ignore[attr-defined]


def test_ctrl_c_drains(cluster: Cluster, folder: Path, words: str) -> None:
    options = ["-t", words, "-g", f"{words}-c", "-n", "2", "-b", cluster.bootstrap_servers, "--json", *SOON]
    process = subprocess.Popen([*COMMAND, "run", "handlers:shout", *options], stdout=subprocess.PIPE)
    with Admin(cluster.bootstrap_servers) as admin:
        deadline = time.monotonic() + 60
        while sum(at.offset for at in admin.list_group_offsets(f"{words}-c").values()) < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["records"] == 10
