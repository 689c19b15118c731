"""A data file that was cut short is told before LMDB reads behind its end; a whole one never is."""

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from tailrace.cut_short import is_cut_short
from tailrace.node.storage.folder import DATA
from tailrace.protocol.errors import DataFolderError

from .node.storage.support import fill, one_log, open_storage
from .patience import PATIENCE_S

PAGE = 4096
SIZES = (10, 100, 1_900, 9_000, 60_000)
READ_ALL = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], readonly=True, lock=False, max_dbs=1)
database = environment.open_db(b"log", create=False)
with environment.begin() as transaction:
    for _ in transaction.cursor(db=database):
        pass
"""


def commits(folder: Path, seed: int, count: int) -> Iterator[lmdb.Environment]:
    """Transactions that put and delete; after each the environment."""
    draw = random.Random(seed)
    environment = lmdb.open(str(folder), map_size=1 << 28, max_dbs=1, sync=False)
    database = environment.open_db(b"log")
    for _ in range(count):
        with environment.begin(write=True) as transaction:
            for _ in range(draw.choice((1, 3, 30, 300))):
                key = struct.pack(">Q", draw.randrange(500))
                if draw.random() < 0.5:
                    transaction.put(key, bytes(draw.choice(SIZES)), db=database)
                else:
                    transaction.delete(key, db=database)
        yield environment
    environment.close()


def test_a_whole_file_may_be_shorter_than_its_pages(tmp_path: Path) -> None:
    short = 0
    for seed in range(10):
        folder = tmp_path / str(seed)
        for environment in commits(folder, seed, 40):
            pages = environment.info()["last_pgno"] + 1
            short += (folder / DATA).stat().st_size < pages * PAGE
            assert not is_cut_short(folder / DATA)
    assert short, "there is none among these: draw others"


@pytest.mark.parametrize("seed", range(3))
def test_what_would_end_by_a_signal_is_told(tmp_path: Path, seed: int) -> None:
    for _ in commits(tmp_path, seed, 20):
        pass
    data = tmp_path / DATA
    pages = data.stat().st_size // PAGE
    died = []
    for left in sorted({pages - 1, pages - 2, pages - 5, pages // 2, 4, 2}, reverse=True):
        os.truncate(data, left * PAGE)
        command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
        code = subprocess.run(command, check=False, timeout=PATIENCE_S).returncode
        assert code in (0, -signal.SIGBUS)
        assert code == 0 or is_cut_short(data)
        died.append(code != 0)
    assert died[-1], "half of it is missing"


def test_free_pages_at_the_end_may_be_missing(tmp_path: Path) -> None:
    """The end of the file was in use once, and is not any more."""
    with lmdb.open(str(tmp_path), map_size=1 << 28, sync=False) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"small", b"kept")
        with environment.begin(write=True) as transaction:
            transaction.put(b"large", bytes(100 * PAGE))
        for _ in range(6):  # so that all that is in use lies below it
            with environment.begin(write=True) as transaction:
                transaction.delete(b"large")
                transaction.put(b"small", os.urandom(8))
        pages = environment.info()["last_pgno"] + 1
    assert pages > 100
    os.truncate(tmp_path / DATA, 50 * PAGE)
    assert not is_cut_short(tmp_path / DATA)


def test_a_node_does_not_open_what_was_cut_short(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "node")
    fill(storage, one_log(storage), 30, size=5_000)
    storage.close(clean=True)
    data = tmp_path / "node" / DATA
    size = data.stat().st_size - 10 * PAGE
    os.truncate(data, size)
    with pytest.raises(DataFolderError, match=f"is damaged: data.mdb was cut short: .* byte {size}"):
        open_storage(tmp_path / "node")
    assert data.stat().st_size == size, "it is left as it is"


@pytest.mark.parametrize("place", [12, 24])
def test_garbage_in_the_list_of_free_pages_is_damage(tmp_path: Path, place: int) -> None:
    storage = open_storage(tmp_path / "node")
    fill(storage, one_log(storage), 30, size=5_000)
    storage.close(clean=True)
    data = tmp_path / "node" / DATA
    content = bytearray(data.read_bytes()[: -10 * PAGE])
    roots = {struct.unpack_from("<Q", content, meta + 16 + 24 + 40)[0] for meta in (0, PAGE)}
    for root in roots:
        content[root * PAGE + place : (root + 1) * PAGE] = b"\xff" * (PAGE - place)
    data.write_bytes(content)
    with pytest.raises(DataFolderError, match="is damaged"):
        open_storage(tmp_path / "node")


@pytest.mark.parametrize("content", [b"", bytes(100), bytes(10 * PAGE), b"\xff" * 3 * PAGE])
def test_what_is_no_file_of_lmdb_is_for_lmdb_to_tell(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATA).write_bytes(content)
    assert not is_cut_short(tmp_path / DATA)
