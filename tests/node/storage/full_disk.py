"""Run by test_space.py in a mount namespace: argv[1] is a tmpfs of 24 MiB."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from tailrace.node.storage import Append, Appended, PartitionLog, Storage
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import StorageFullError, TailraceError
from tailrace.protocol.limits import MIB

DISK = Path(sys.argv[1])
KEY = (bytes(16), 0)
NOW = 1_700_000_000_000


def check(holds: bool, what: str) -> None:
    """As assert, also under -O."""
    if not holds:
        raise SystemExit(f"failed: {what}")


def append(storage: Storage, log: PartitionLog, size: int) -> Appended | TailraceError:
    """One batch, one group."""
    data = memoryview(bytearray(encode([os.urandom(size)], timestamps=NOW)))
    (result,) = storage.commit([Append(log, data, parse_header(data), NOW)])
    return result


def fill(storage: Storage, log: PartitionLog) -> int:
    """Until it is refused."""
    stored = 0
    while isinstance(result := append(storage, log, 50_000), Appended):
        stored += 1
    check(isinstance(result, StorageFullError), f"{result!r} is no StorageFullError")
    check(storage.faulted is None, f"faulted: {storage.faulted}")
    return stored


def hog() -> None:
    """Another program takes the rest of the disk."""
    with (DISK / "hog").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def open_storage() -> Storage:
    """With a quota far over the disk's size."""
    return Storage.open(DISK / "node-1", quota_bytes=256 * MIB, reserve_bytes=64 * MIB)


def stop_on_a_full_disk() -> None:
    """Storage in which nothing was freed: the ballast makes room for the marker; without, it is left out."""
    for ballast in (True, False):
        storage = open_storage()
        if not ballast:
            storage.ballast.drop()
        hog()
        storage.close(clean=True)
        (DISK / "hog").unlink()
        storage = open_storage()
        check(storage.clean is ballast, f"told to be clean: {storage.clean}, with a ballast: {ballast}")
        storage.close(clean=True)
        shutil.rmtree(DISK / "node-1")


def main() -> None:
    """Fill, free, fill by someone else, free, restart full."""
    stop_on_a_full_disk()
    storage = open_storage()
    storage.create([KEY])
    log = storage.logs[KEY]
    stored = fill(storage, log)
    check(stored * 50_000 > 12 * MIB, f"only {stored} batches fitted")
    while storage.retain(log, -1, 2 * MIB, NOW):
        pass
    check(fill(storage, log) > stored // 2, "writing did not resume after retention")

    hog()
    first = log.log_start_offset
    check(isinstance(append(storage, log, 50_000), StorageFullError), "a full disk took a batch")
    check(len(storage.read(log, first, MIB, log.high_watermark, bytes)) > 10, "reads stopped")
    check((DISK / "node-1/ballast").exists(), "the ballast was gone before it was needed")
    storage.create([(bytes(16), 1)])
    end = log.log_end_offset - 3
    check(storage.truncate(log, end) == end, "truncation stopped")
    while storage.retain(log, -1, 4 * MIB, NOW):
        pass
    check(log.log_start_offset > first, "retention stopped")
    check(fill(storage, log) > 10, "freed pages were not used")
    storage.close(clean=True)

    hog()
    storage = open_storage()
    check(storage.clean, "the stop was clean")
    log = storage.logs[KEY]
    while storage.delete_slice(KEY):
        pass
    check(isinstance(append(storage, storage.logs[bytes(16), 1], 50_000), Appended), "no room after deletion")
    (DISK / "hog").unlink()
    storage.ballast.restore(0.0)
    check((DISK / "node-1/ballast").exists(), "the ballast did not come back")
    problems = storage.verify().problems
    check(problems == [], f"{problems}")
    storage.close(clean=True)
    sys.stdout.write("passed\n")


if __name__ == "__main__":
    main()
