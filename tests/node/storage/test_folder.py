"""Who may open a data folder, and what is made of one that is not whole."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tailrace.node.storage import schema
from tailrace.node.storage.verify import verify_folder
from tailrace.protocol.errors import DataFolderError, InvalidConfigError
from tailrace.protocol.limits import MIB

from .support import KEY, batch, capacity, commit, fill, one_log, open_storage

OPEN = """
import sys
from pathlib import Path
from tailrace.node.storage import Storage
from tailrace.protocol.errors import DataFolderError
try:
    Storage.open(Path(sys.argv[1]), quota_bytes=2**26, reserve_bytes=2**20)
except DataFolderError as error:
    print(error)
"""


def test_a_second_process_is_refused_and_the_first_unharmed(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    second = subprocess.run(
        [sys.executable, "-c", OPEN, str(house.folder)], capture_output=True, text=True, check=True
    )
    assert f"in use by process {os.getpid()}" in second.stdout
    fill(storage, log, 3)
    with pytest.raises(DataFolderError, match="in use by process"):
        open_storage(house.folder)
    with pytest.raises(DataFolderError, match="in use by process"):
        verify_folder(house.folder)
    fill(storage, log, 3)
    storage = house.reopen()
    assert storage.logs[KEY].log_end_offset == 6


def test_nobody_else_may_look_inside(house: Any) -> None:
    previous = os.umask(0)
    try:
        storage = house.open()
        fill(storage, one_log(storage), 1)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(house.folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in house.folder.iterdir()}
    assert modes == dict.fromkeys(("format", "lock", "data.mdb", "lock.mdb", "ballast"), 0o600)


def test_an_open_folder_is_closed_to_others(house: Any) -> None:
    house.folder.mkdir(mode=0o755)
    house.open()
    assert stat.S_IMODE(house.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["tailrace-storage 2\n", "tailrace-storage 0\n"])
def test_another_format_is_refused_and_left_as_it_is(house: Any, text: str) -> None:
    storage = house.open()
    fill(storage, one_log(storage), 1)
    house.close()
    before = (house.folder / "data.mdb").read_bytes()
    (house.folder / "format").write_text(text)
    with pytest.raises(
        DataFolderError, match=f"has format {text.split()[1]}, this version of Tailrace reads 1"
    ):
        house.open()
    assert (house.folder / "data.mdb").read_bytes() == before


def test_another_format_inside_is_refused_too(house: Any) -> None:
    storage = house.open()
    tables = storage._tables
    with tables.environment.begin(write=True) as transaction:
        tables.put_number(transaction, schema.NODE_FORMAT_VERSION, 9)
    storage.close(clean=True)
    with pytest.raises(DataFolderError, match="has format 9"):
        house.open()
    house.storage = None


def test_a_garbled_format_file(house: Any) -> None:
    house.open()
    house.close()
    for content in (b"", b"tailrace-storage x\n", b"\xff\xfe"):
        (house.folder / "format").write_bytes(content)
        with pytest.raises(DataFolderError, match="not a format file"):
            house.open()


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    tmp_path.chmod(0o755)
    with pytest.raises(DataFolderError, match=r"holds other files \(holiday.jpg\)"):
        open_storage(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_an_environment_of_someone_else_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as environment:
        cats = environment.open_db(b"cats")
        with environment.begin(write=True) as transaction:
            transaction.put(b"tom", b"grey", db=cats)
    with pytest.raises(DataFolderError, match=r"data.mdb is not Tailrace's"):
        open_storage(tmp_path)
    with lmdb.open(str(tmp_path), max_dbs=2) as environment, environment.begin() as transaction:
        assert transaction.get(b"tom", db=environment.open_db(b"cats", txn=transaction)) == b"grey"


def test_no_environment_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no LMDB" * 10_000)
    with pytest.raises(DataFolderError, match=str(tmp_path)):
        open_storage(tmp_path)
    assert (tmp_path / "data.mdb").stat().st_size == 70_000


@pytest.mark.parametrize("table", [schema.EPOCHS, schema.NODE_STORAGE_ID, schema.log_name(0)])
def test_damage_is_one_clear_error(house: Any, table: bytes) -> None:
    storage = house.open()
    fill(storage, one_log(storage), 3)
    house.close()
    data = house.folder / "data.mdb"
    data.write_bytes(data.read_bytes().replace(table, b"\xff" * len(table)))
    with pytest.raises(DataFolderError, match=r"is damaged: .*\. Where other nodes have replicas"):
        open_storage(house.folder)


def test_a_file_that_is_no_lmdb_file_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(bytes(70_000))
    with pytest.raises(DataFolderError, match=r"is damaged: data\.mdb cannot be opened") as refused:
        open_storage(tmp_path)
    assert str(refused.value).count(str(tmp_path)) == 1


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataFolderError, match="file"):
        open_storage(tmp_path / "file")
    with pytest.raises(DataFolderError, match="is not the data folder of a node"):
        verify_folder(tmp_path / "nothing")


@pytest.mark.parametrize("left", [(), ("lock",), ("lock", "data.mdb"), ("lock", "data.mdb", "lock.mdb")])
def test_a_folder_whose_making_was_cut_short(house: Any, left: tuple[str, ...]) -> None:
    """Up to the first commit the data file holds two meta pages, or nothing, or only zeros of them."""
    house.folder.mkdir()
    for name in left:
        (house.folder / name).write_bytes(bytes(8_192) if name == "data.mdb" else b"")
    storage = house.open()
    fill(storage, one_log(storage), 1)
    storage = house.reopen()
    assert storage.logs[KEY].log_end_offset == 1


def test_a_lost_format_file_loses_nothing(house: Any) -> None:
    storage = house.open()
    fill(storage, one_log(storage), 1)
    house.close()
    (house.folder / "format").unlink()
    storage = house.open()
    assert storage.logs[KEY].log_end_offset == 1
    assert (house.folder / "format").read_text() == "tailrace-storage 1\n"


def test_a_lost_data_file_is_noticed(house: Any) -> None:
    storage = house.open()
    fill(storage, one_log(storage), 1)
    house.close()
    (house.folder / "data.mdb").unlink()
    with pytest.raises(DataFolderError, match=r"data.mdb is missing"):
        house.open()


def test_the_storage_id_stays_and_another_folder_has_another(house: Any, tmp_path: Path) -> None:
    storage = house.open()
    first, openings = storage.storage_id, storage.openings
    again = house.reopen()
    assert again.storage_id == first
    assert len(openings) == 1
    assert (again.openings[:-1], len(set(again.openings))) == (openings, 2)
    other = open_storage(tmp_path / "node-2")
    assert other.storage_id != first
    other.close(clean=True)


def test_the_clean_marker(house: Any) -> None:
    assert house.open().clean, "new storage has nothing to lose"
    assert house.reopen(clean=True).clean
    assert not house.reopen(clean=False).clean
    assert house.reopen(clean=True).clean


def test_relaxed_flush_is_ordinary_otherwise(house: Any) -> None:
    storage = house.open(flush="relaxed")
    flags = storage._tables.environment.flags()
    assert (flags["sync"], flags["metasync"]) == (True, False)
    fill(storage, one_log(storage), 2)
    storage = house.reopen(clean=False)
    assert storage._tables.environment.flags()["metasync"]
    assert storage.logs[KEY].log_end_offset == 2


def test_ephemeral_storage_survives_only_a_clean_stop(house: Any) -> None:
    storage = house.open(ephemeral=True)
    first = storage.storage_id
    fill(storage, one_log(storage), 2)
    storage = house.reopen(clean=True, ephemeral=True)
    assert (storage.storage_id, storage.logs[KEY].log_end_offset) == (first, 2)
    storage = house.reopen(clean=False, ephemeral=True)
    assert storage.storage_id != first
    assert storage.logs == {}
    second = storage.storage_id
    one_log(storage)
    storage = house.reopen(clean=False, ephemeral=False)
    assert storage.storage_id != second, "what was not synced is void, whatever opens it"
    assert storage.logs == {}
    commit(storage, one_log(storage), batch())
    assert house.reopen(clean=False).logs[KEY].log_end_offset == 1


def test_a_quota_that_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be mapped"):
        open_storage(tmp_path / "node-1", quota_bytes=2**55)
    shutil.rmtree(tmp_path / "node-1")


def test_a_smaller_quota_than_there_is_data(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 80, size=100_000)
    storage = house.reopen(quota_bytes=4 * MIB)
    log = storage.logs[KEY]
    assert len(storage.read(log, 0, 16 * MIB, 80, bytes)) == 80
    assert storage.used_bytes > capacity(storage)
