"""Run by test_first_opening.py in a mount namespace: argv[1] is a small tmpfs, argv[2] what is opened on it.

The disk has 0, 1, 2, ... free pages. Each opening is a process of its own, which no signal may end.
"""

import os
import subprocess
import sys
from pathlib import Path

from tailrace.consumer.local.partition import PartitionStore
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.node.storage import Storage
from tailrace.protocol.errors import DataFolderError, StorageFaultError, StorageFullError
from tailrace.protocol.limits import MIB
from tailrace.protocol.record import TopicPartition

DISK = Path(sys.argv[1])
PAGE = 4096
FREE_PAGES_MAX = 6
OPENED = {
    "node": lambda: Storage.open(DISK / "node", quota_bytes=16 * MIB, reserve_bytes=0).close(clean=True),
    "coordinator": lambda: LmdbStore(DISK / "coordinator").close(),
    "groups": lambda: LmdbGroupStore(DISK / "groups").close(),
    "offsets": lambda: PartitionStore(DISK / "offsets", TopicPartition("t", 0), bytes(16), "test").close(),
}


def leave(pages: int) -> None:
    """Fill the disk but for these."""
    with (DISK / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(PAGE))
        except OSError:
            filler.truncate(max(0, filler.tell() - pages * PAGE))


def main(what: str) -> None:
    for pages in range(FREE_PAGES_MAX):
        subprocess.run(["rm", "-rf", *DISK.iterdir()], check=True)
        leave(pages)
        done = subprocess.run([sys.executable, __file__, DISK, what, "once"], check=False)
        if done.returncode != 0:
            raise SystemExit(f"failed: {what} on a disk with {pages} free pages ends with {done.returncode}")
    sys.stdout.write("passed\n")


if len(sys.argv) == 3:
    main(sys.argv[2])
else:
    try:
        OPENED[sys.argv[2]]()
    except (DataFolderError, StorageFullError, StorageFaultError):
        os._exit(0)
