"""Storage against bare LMDB in the same run: group commits of batches, reads, and the time to open.

    python benchmarks/storage.py [--folder DIR] [--groups N]

Bare LMDB means: the same bytes under the same keys, `put(append=True)`, one transaction a group, the
same flags; no header is read, no CRC checked, nothing else written. The two take turns, a group each.
"""

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lmdb
from arguments import positive

from tailrace.node.storage import Append, Appended, Storage
from tailrace.protocol.batch import check_crc, parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.limits import GIB, MIB

TOPIC = bytes(16)
QUOTA_BYTES = 8 * GIB


def batches(count: int, records: int, value_bytes: int, first: int) -> list[memoryview]:
    """Writable batches of one idempotent producer, in order."""
    made = []
    for number in range(first, first + count):
        values = [os.urandom(value_bytes)] * records
        sequence = number * records & 0x7FFFFFFF
        batch = encode(
            values, timestamps=1_000 + number, producer_id=1, producer_epoch=0, base_sequence=sequence
        )
        made.append(memoryview(bytearray(batch)))
    return made


class Bare:
    """The least that stores the batches durably."""

    def __init__(self, folder: Path, sync: bool) -> None:
        self.environment = lmdb.open(str(folder), map_size=QUOTA_BYTES, max_dbs=4_006, sync=sync)
        with self.environment.begin(write=True) as transaction:
            self.log = self.environment.open_db(b"log", txn=transaction, integerkey=True)
        self.next = 0

    def commit(self, group: list[memoryview], records: int) -> None:
        with self.environment.begin(write=True) as transaction:
            for batch in group:
                self.next += records
                transaction.put(struct.pack("=Q", self.next - 1), batch, append=True, db=self.log)


class Ours:
    """`Storage.commit`, from the bytes as they arrive."""

    def __init__(self, folder: Path, sync: bool) -> None:
        self.storage = Storage.open(
            folder, quota_bytes=QUOTA_BYTES, reserve_bytes=64 * MIB, ephemeral=not sync
        )
        self.storage.create([(TOPIC, 0)])
        self.log = self.storage.logs[TOPIC, 0]
        self.storage.begin_epochs([(self.log, 1)])

    def commit(self, group: list[memoryview]) -> None:
        log = self.log
        appends = [Append(log, batch, parse_header(batch), 1_000) for batch in group]
        for result in self.storage.commit(appends):
            if not isinstance(result, Appended) or result.duplicate:
                raise SystemExit(f"not appended: {result}")


def compare(
    folder: Path, *, sync: bool, groups: int, count: int, records: int, value_bytes: int
) -> dict[str, Any]:
    """Median times of a group commit, ours and bare, taking turns."""
    bare, ours = Bare(folder / "bare", sync), Ours(folder / "ours", sync)
    times: dict[str, list[float]] = {"bare": [], "ours": [], "crc": []}
    for number in range(groups):
        group = batches(count, records, value_bytes, number * count)
        headers = [parse_header(batch) for batch in group]
        turns: list[tuple[str, Callable[[], None]]] = [
            ("bare", lambda group=group: bare.commit(group, records)),
            ("ours", lambda group=group: ours.commit(group)),
        ]
        for name, turn in turns if number % 2 else reversed(turns):
            started = time.perf_counter()
            turn()
            times[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        for batch, header in zip(group, headers, strict=True):
            check_crc(batch, header)
        times["crc"].append(time.perf_counter() - started)
    size = sum(map(len, group))
    ours.storage.close(clean=True)
    bare.environment.close()
    shutil.rmtree(folder / "bare")
    shutil.rmtree(folder / "ours")
    middle = {name: median(values) for name, values in times.items()}
    return {
        "fsync": sync,
        "batches": count,
        "batch_bytes": size // count,
        "bare_ms": round(middle["bare"] * 1e3, 3),
        "ours_ms": round(middle["ours"] * 1e3, 3),
        "ours_mb_per_s": round(size / middle["ours"] / 1e6),
        "of_bare": round(middle["bare"] / middle["ours"], 3),
        "overhead_us_per_batch": round((middle["ours"] - middle["bare"]) / count * 1e6, 2),
        "of_which_crc_us": round(middle["crc"] / count * 1e6, 2),
    }


def reads(folder: Path, groups: int) -> dict[str, Any]:
    """Reads of 1 MiB from the page cache, and opening a folder of that size again."""
    ours = Ours(folder / "reads", sync=False)
    for number in range(groups):
        ours.commit(batches(10, 1_000, 100, number * 10))
    storage, log = ours.storage, ours.log
    times, offset, read = [], 0, 0
    while offset < log.log_end_offset:
        started = time.perf_counter()
        got = storage.read(log, offset, MIB, log.high_watermark, bytes)
        times.append(time.perf_counter() - started)
        read += sum(map(len, got))
        offset += 1_000 * len(got)
    storage.close(clean=True)
    started = time.perf_counter()
    opened = Storage.open(folder / "reads", quota_bytes=QUOTA_BYTES, reserve_bytes=64 * MIB)
    opening = time.perf_counter() - started
    opened.close(clean=True)
    shutil.rmtree(folder / "reads")
    return {
        "read_1_mib_us": round(median(times) * 1e6, 1),
        "read_mb_per_s": round(read / sum(times) / 1e6),
        "open_ms": round(opening * 1e3, 1),
        "open_bytes": read,
    }


def main() -> None:
    """Run it all and print one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (a real disk)")
    parser.add_argument("--groups", type=positive, default=200)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="bench-storage-"))
    try:
        for sync in (True, False):
            for count, records, value_bytes in ((10, 1_000, 100), (1, 1, 100), (100, 10, 100)):
                result = compare(
                    folder,
                    sync=sync,
                    groups=options.groups,
                    count=count,
                    records=records,
                    value_bytes=value_bytes,
                )
                sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.write(json.dumps(reads(folder, options.groups)) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
