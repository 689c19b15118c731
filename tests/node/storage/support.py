"""Batches, and storage that is checked as a whole when a test is done with it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tailrace.node.storage import Append, Appended, PartitionLog, Storage
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import MIB

TOPIC = bytes(range(16))
KEY = (TOPIC, 0)
NOW = 1_700_000_000_000

Result = Appended | TailraceError


def open_storage(folder: Path, **options: Any) -> Storage:
    """Small enough that making it is quick."""
    return Storage.open(folder, **{"quota_bytes": 64 * MIB, "reserve_bytes": MIB, **options})


def one_log(storage: Storage, key: tuple[bytes, int] = KEY) -> PartitionLog:
    """A new log in epoch 1."""
    storage.create([key])
    log = storage.logs[key]
    storage.begin_epochs([(log, 1)])
    return log


def batch(
    records: int = 1,
    *,
    size: int = 10,
    producer: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    timestamps: int | Sequence[int] = NOW,
) -> bytes:
    """`records` records of `size` random bytes each."""
    if producer >= 0:
        epoch = max(epoch, 0)
    return encode(
        [os.urandom(size) for _ in range(records)],
        timestamps=timestamps,
        producer_id=producer,
        producer_epoch=epoch,
        base_sequence=sequence,
    )


def append(log: PartitionLog, data: bytes, now_ms: int = NOW) -> Append:
    """As the node makes it of a frame."""
    writable = memoryview(bytearray(data))
    return Append(log, writable, parse_header(writable), now_ms)


def commit(storage: Storage, log: PartitionLog, *batches: bytes, now_ms: int = NOW) -> list[Result]:
    """One group."""
    return storage.commit([append(log, data, now_ms) for data in batches])


def fill(storage: Storage, log: PartitionLog, count: int, **options: Any) -> None:
    """`count` batches, all of them appended."""
    results = commit(storage, log, *(batch(**options) for _ in range(count)))
    assert all(isinstance(result, Appended) for result in results), results


def bases(batches: Sequence[bytes]) -> list[int]:
    """Base offsets of what was read."""
    return [parse_header(data).base_offset for data in batches]


def data_descriptors(folder: Path) -> tuple[int, int]:
    """LMDB's own (data, meta) descriptors of this process; the meta one is opened with O_DSYNC."""
    found: dict[bool, int] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue
        if target == folder / "data.mdb":
            info = Path(f"/proc/self/fdinfo/{link.name}").read_text()
            flags = int(next(line for line in info.splitlines() if line.startswith("flags:")).split()[1], 8)
            found[bool(flags & os.O_DSYNC)] = int(link.name)
    return found[False], found[True]


class Redirected:
    """One of LMDB's descriptors leads elsewhere for a while."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path

    def __enter__(self) -> None:
        self._saved = os.dup(self._descriptor)
        other = os.open(self._path, os.O_RDWR if self._path == "/dev/full" else os.O_RDONLY)
        os.dup2(other, self._descriptor)
        os.close(other)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, self._descriptor)
        os.close(self._saved)


def capacity(storage: Storage) -> int:
    """What the storage's `used_bytes` may rise to now."""
    return storage._tables.space.capacity(time.time_ns() // 1_000_000)
