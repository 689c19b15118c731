"""Configuration files: what they say, and what is refused, with its line, before anything starts."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.cli.cluster_config import ClusterConfig, load_cluster
from tailrace.processes.layout import Layout, layout_of
from tailrace.protocol.errors import InvalidConfigError
from tailrace.transport.endpoint import IPC_PATH_BYTES_MAX

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def load(tmp_path: Path):
    """Write a text to a file and load it."""

    def load(text: str, **overrides: object) -> ClusterConfig:
        file = tmp_path / "cluster.yaml"
        file.write_text(text)
        return load_cluster(file, **overrides)

    return load


FULL = """\
data_dir: DATA
coordinator:
  listen: 127.0.0.1:7171
  publisher_listen: 127.0.0.1:7172
  session_timeout_ms: 2s
  offsets_retention_ms: 5000
  beat_interval_ms: 500
node_defaults:
  flush: relaxed
  quota_bytes: 1GiB
nodes:
  - id: 7
    listen: "[::1]:7173"
    rack: east
    ephemeral: true
    reserve_bytes: 1048576
    retention_check_ms: 100
  - id: 0
    flush: commit
    quota_bytes: 67108864
"""


def test_every_key(load, tmp_path: Path) -> None:
    cluster = load(FULL.replace("DATA", str(tmp_path)))
    run = f"ipc://{tmp_path}/run"
    coordinator = cluster.coordinator
    assert coordinator.data_dir == tmp_path / "coordinator"
    assert (coordinator.tcp, coordinator.ipc) == ("tcp://127.0.0.1:7171", f"{run}/coordinator.sock")
    assert coordinator.publisher_tcp == "tcp://127.0.0.1:7172"
    assert coordinator.publisher_ipc == f"{run}/publisher.sock"
    assert (coordinator.session_timeout_ms, coordinator.beat_interval_ms) == (2_000, 500)
    assert coordinator.offsets_retention_ms == 5_000
    first, second = cluster.nodes
    assert cluster.node(7) is first
    assert (first.node_id, first.data_dir) == (7, tmp_path / "node-7")
    assert (first.tcp, first.ipc) == ("tcp://[::1]:7173", f"{run}/node-7.sock")
    assert first.coordinator == (f"{run}/coordinator.sock", "tcp://127.0.0.1:7171")
    assert (first.rack, first.ephemeral, first.flush) == ("east", True, "relaxed")
    assert (first.quota_bytes, first.reserve_bytes, first.retention_check_ms) == (1 << 30, 1 << 20, 100)
    assert (second.node_id, second.tcp, second.flush) == (0, "tcp://127.0.0.1:0", "commit")
    assert (second.quota_bytes, second.ephemeral) == (64 << 20, False)


def test_the_least_that_a_file_must_say(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cluster = load("data_dir: here\nnodes: [{id: 1}]")
    assert cluster.coordinator.tcp == "tcp://127.0.0.1:7070"
    assert cluster.layout.root == tmp_path / "here", "relative to the current folder"


def test_the_command_line_goes_first(load, tmp_path: Path) -> None:
    cluster = load("data_dir: here\nnodes: [{id: 1}]", data_dir=tmp_path / "there", port=0)
    assert cluster.layout.root == tmp_path / "there"
    assert cluster.coordinator.tcp == "tcp://127.0.0.1:0"
    assert load("nodes: [{id: 1}]", data_dir=tmp_path).nodes[0].data_dir == tmp_path / "node-1"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("data_dir: x\nnodes: [{id: 1}]\nnode: 3", 3, "unknown key 'node'; did you mean 'nodes'?"),
        ("data_dir: x\nnodes:\n  - id: 1\n    quota_byte: 3", 4, "did you mean 'quota_bytes'?"),
        ("data_dir: x\ncoordinator:\n  lisen: a\nnodes: [{id: 1}]", 3, "coordinator: unknown key 'lisen'"),
        ("data_dir: x\nnode_defaults:\n  id: 3\nnodes: [{id: 1}]", 3, "unknown key 'id'; known are"),
        ("data_dir: x\n\nnodes:\n  - rack: a", 4, "nodes[0]: 'id' is missing"),
        ("data_dir: x\nnodes:\n  - id: 1\n  - id: 1", 4, "two nodes with id 1"),
        ("data_dir: x\nnodes:\n  - id: one", 3, "nodes[0].id: expected a whole number from 0"),
        ("data_dir: x\nnodes:\n  - id: true", 3, "expected a whole number"),
        ("data_dir: x\ncoordinator:\n  session_timeout_ms: 2.5", 3, "expected milliseconds, or a duration"),
        ("data_dir: x\ncoordinator:\n  session_timeout_ms: 2w", 3, "'2w' is no duration; write one such as"),
        ("data_dir: x\ncoordinator:\n  session_timeout_ms: 2h", 3, "'2h' is not within 100 and 3600000 mil"),
        ("data_dir: x\nnodes:\n  - id: -1", 3, "expected a whole number"),
        ("data_dir: x\nnodes: []", 2, "nodes: expected a list of at least one, not an empty list"),
        ("data_dir: x\nnodes: 3", 2, "nodes: expected a list of at least one, not 3"),
        ("data_dir: x\nnodes:\n  - 3", 3, "nodes[0]: expected keys and values, not 3"),
        ("data_dir: x", 1, "'nodes' is missing"),
        ("nodes: [{id: 1}]", 1, "'data_dir' is missing"),
        ("data_dir:\nnodes: [{id: 1}]", 1, "data_dir: expected a text, not nothing"),
        ("data_dir: x\ndata_dir: y\nnodes: [{id: 1}]", 2, "'data_dir' is there twice, first in line 1"),
        ("data_dir: x\nnodes: [{id: 1, quota_bytes: 64GB!}]", 2, "'64GB!' is no size"),
        ("data_dir: x\nnodes: [{id: 1, quota_bytes: 1.5}]", 2, "expected a size such as 64GiB, not 1.5"),
        ("data_dir: x\nnodes: [{id: 1, quota_bytes: 3}]", 2, "3 is not within"),
        ("data_dir: x\nnodes: [{id: 1, flush: never}]", 2, "expected commit or relaxed, not 'never'"),
        ("data_dir: x\nnodes: [{id: 1, ephemeral: 1}]", 2, "expected true or false, not 1"),
        ("data_dir: x\nnodes: [{id: 1, rack: ''}]", 2, "expected a text, not ''"),
        ("data_dir: x\nnodes: [{id: 1, listen: 7070}]", 2, "expected host:port"),
        ("data_dir: x\nnodes: [{id: 1, listen: localhost}]", 2, "write host:port"),
        ("data_dir: x\nnodes: [{id: 1, listen: 'a:b'}]", 2, "the port must be a number"),
        ("data_dir: x\nnodes: [{id: 1, listen: 'no-such-host.invalid:1'}]", 2, "no host name that is known"),
        (
            "data_dir: x\nnodes: [{id: 1, listen: '127.0.0.1:7070'}]",
            1,
            "two processes listen on 127.0.0.1:7070",
        ),
        ("data_dir: x\nnodes: [{id: 1}\nmore", 3, "expected ',' or ']'"),
        ("data_dir: x\n\tnodes: 1", 2, "cannot start any token"),
        ("data_dir: !!python/object:os.system x\nnodes: [{id: 1}]", 1, "is not a value of a kind"),
        ("data_dir: &a [*a]\nnodes: [{id: 1}]", 1, ""),
        ("- a\n- b", 1, "expected keys and values, not a list"),
        ("? {a: b}\n: c", 1, "a key must be a plain word"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    load, tmp_path: Path, text: str, line: int, reason: str
) -> None:
    with pytest.raises(InvalidConfigError) as raised:
        load(text)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'cluster.yaml'}:{line}: ")
    assert reason in message


@pytest.mark.parametrize("text", ["", "# nothing", "---\n"])
def test_an_empty_file(load, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"empty|expected keys"):
        load(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"none\.yaml: no such file"):
        load_cluster(tmp_path / "none.yaml")


def test_a_node_that_is_not_there(load) -> None:
    with pytest.raises(InvalidConfigError, match="has no node 3; it has 1, 2"):
        load("data_dir: x\nnodes: [{id: 1}, {id: 2}]").node(3)


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "[::]", "192.0.2.1", "10.0.0.1", "[2001:db8::1]"])
def test_an_address_that_others_reach_needs_a_word(load, address: str) -> None:
    text = f"data_dir: x\ncoordinator:\n  listen: '{address}:7070'\nnodes: [{{id: 1}}]"
    with pytest.raises(InvalidConfigError, match=r":3: .*neither encrypted .*insecure: true"):
        load(text)
    assert load(f"{text}\ninsecure: true").coordinator.tcp == f"tcp://{address}:7070"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_loopback_addresses_need_none(load, address: str) -> None:
    assert (
        load(f"data_dir: x\nnodes: [{{id: 1, listen: '{address}:0'}}]").nodes[0].tcp == f"tcp://{address}:0"
    )


def test_nodes_find_a_far_coordinator_by_its_address(load) -> None:
    listen = "data_dir: x\ninsecure: true\ncoordinator: {listen: '%s'}\nnodes: [{id: 1}]"
    assert load(listen % "192.0.2.1:7070").nodes[0].coordinator[1:] == ("tcp://192.0.2.1:7070",)
    assert load(listen % "0.0.0.0:7070").nodes[0].coordinator[1:] == ("tcp://127.0.0.1:7070",)
    assert load(listen % "[::]:7070").nodes[0].coordinator[1:] == ("tcp://[::1]:7070",)
    assert load(listen % "0.0.0.0:0").nodes[0].coordinator[1:] == (), "any free port: known by itself alone"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_the_configs_that_come_with_it(file: Path, tmp_path: Path) -> None:
    assert load_cluster(file, data_dir=tmp_path).nodes


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("abid_:[]{}-&*!|>'\"#%\n\t 0123nodes"), max_size=60))
def test_any_text_loads_or_is_refused(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        with pytest.raises(InvalidConfigError):
            load_cluster(Path(file.name))


def test_sockets_of_a_deep_folder_lie_in_the_temporary_one(tmp_path: Path) -> None:
    short, deep = Layout(Path("/data")), layout_of(tmp_path / ("x" * 100))
    assert short.ipc("node-1") == "ipc:///data/run/node-1.sock"
    path = deep.ipc("node-1").removeprefix("ipc://")
    assert len(os.fsencode(path)) <= IPC_PATH_BYTES_MAX
    assert deep.run == layout_of(tmp_path / ("x" * 100)).run, "all processes agree"
    assert deep.run != layout_of(tmp_path / ("x" * 99 + "y")).run


def test_sockets_have_paths_that_fit_whatever_the_folders_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout_of(Path("/srv/log")).run == Path("/srv/log/run")
    long = tmp_path / ("x" * 100)
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert layout_of(long).run.parent == Path("/var/tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert layout_of(long).run.parent == Path("/tmp")
    assert layout_of(long).run != layout_of(long / "other").run
