"""docs/storage.md names every file, table, key and field that the code stores."""

import re
from pathlib import Path

import pytest

from tailrace.consumer.local import access, partition
from tailrace.consumer.local.store import LocalStore
from tailrace.consumer.stored_offset import StoredOffset
from tailrace.coordinator.store import lmdb_store, rows
from tailrace.node.storage import folder, schema
from tailrace.protocol import cluster, limits
from tailrace.protocol.record import TopicPartition

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "storage.md").read_text()
NODE, COORDINATOR, CONSUMER = re.split(r"(?m)^## ", TEXT)[1:]


def tables_in(section: str) -> set[str]:
    """What stands before `key -> value` in a grammar; a log's table is named `log-<id>`."""
    return set(re.findall(r"(?m)^([a-z_]+)\s.*\S\s+-> ", section))


def keys_in(section: str) -> set[str]:
    """The rows of a table of names: `"name"  type  meaning`."""
    return set(re.findall(r'(?m)^[a-z= ]*\s"(\w+)" +(?:integer|text|map|array|u64)', section))


def names(values: tuple[bytes, ...]) -> set[str]:
    return {value.decode() for value in values}


def test_tables_of_a_node() -> None:
    assert tables_in(NODE) == names(schema.TABLES)
    assert "log-<id in 8 hex>" in NODE


def test_keys_of_a_node() -> None:
    assert keys_in(NODE) == names(
        tuple(value for name, value in vars(schema).items() if name.startswith("NODE_"))
    )


def test_tables_of_the_coordinator() -> None:
    assert tables_in(COORDINATOR) == set(rows.TABLES)


def test_keys_of_the_coordinator() -> None:
    assert keys_in(COORDINATOR) == {row.key.decode() for row in rows.first_rows("")}
    assert f'"format"             integer  {rows.FORMAT}\n' in COORDINATOR


def test_row_kinds_of_the_coordinator() -> None:
    for kind in (cluster.NodeInfo, cluster.PartitionInfo, rows.TopicRow):
        assert f"-> {kind.__name__}\n" in COORDINATOR
    assert "TopicRow     = array: name text, config TopicConfig\n" in COORDINATOR
    assert rows.TopicRow.__struct_fields__ == ("name", "config")


def test_offsets_of_a_consumer(tmp_path: Path) -> None:
    assert tables_in(CONSUMER) == {access.STORE.decode(), access.STATE.decode()}
    assert keys_in(CONSUMER) == names((partition.IDENTITY, partition.OFFSET))
    for kind, form in ((partition.Identity, "map: "), (StoredOffset, "array: ")):
        (line,) = [line for line in CONSUMER.splitlines() if form in line]
        stated = line.partition(form)[2].split(", ")
        assert [field.split()[0] for field in stated] == list(kind.__struct_fields__)
        assert kind.__struct_config__.array_like is (form == "array: ")
    assert f"format integer {partition.FORMAT}," in CONSUMER

    store = LocalStore(tmp_path, "test")
    store.hold(TopicPartition("t", 3), bytes(16))
    store.write({(bytes(16), 3): StoredOffset(1)})
    store.close()
    (made,) = tmp_path.iterdir()
    assert made.name == f"{bytes(16).hex()}-3"
    for file in made.iterdir():
        assert f"  {file.name} " in CONSUMER


@pytest.mark.parametrize("name", sorted(folder.OUR_FILES))
def test_files_of_a_node(name: str) -> None:
    assert f"| `{name}` |" in NODE


def test_files_of_the_coordinator(tmp_path: Path) -> None:
    store = lmdb_store.LmdbStore(tmp_path / "coordinator")
    try:
        for file in (tmp_path / "coordinator").iterdir():
            assert f"| `{file.name}` |" in COORDINATOR
    finally:
        store.close()


def test_bounds_exist() -> None:
    for name in set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*_(?:MAX|BYTES)\b", TEXT)):
        assert hasattr(limits, name), name
