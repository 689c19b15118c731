"""A follower's life, the same one for a seed: copies, truncation, new starts. Says each commit on a socket.

python replicate.py FOLDER SEED [--no-sync]
"""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lmdb

from tailrace.node.storage import Append, Appended, PartitionLog, Replicated, Storage
from tailrace.protocol.batch import parse_header, stamp
from tailrace.protocol.columns import encode
from tailrace.protocol.limits import MIB

STEPS = 160
TOPIC = bytes(16)
NOW = 1_700_000_000_000
QUOTA_BYTES = 32 * MIB
SIZES = (60, 700, 2_000, 4_100, 9_000, 40_000)
"""Bytes of payload in a batch: below and just over a page, and well over it."""
KEEP_BYTES = 256 * 1_024


class Life:
    """Decides by the seed and by what the logs hold."""

    def __init__(self, storage: Storage, seed: int) -> None:
        self.random = Random(seed)
        self.storage = storage
        self.epoch = 1
        self.sequences: dict[int, int] = {}

    def steps(self) -> Iterator[None]:
        """Yields after each transaction."""
        storage, random = self.storage, self.random
        storage.create([(TOPIC, partition) for partition in range(3)])
        logs = list(storage.logs.values())
        storage.begin_epochs([(logs[2], 1)])
        yield
        for _ in range(STEPS):
            log = random.choice(logs[:2])
            chance = random.random()
            if chance < 0.2:
                storage.truncate(log, self.place(log))
            elif chance < 0.24:
                while storage.reset(log, log.log_end_offset + 5):
                    yield
            else:
                self.append(logs)
            yield
            while log.size_bytes > KEEP_BYTES and storage.advance_start(log, self.place(log)):
                yield
            yield

    def place(self, log: PartitionLog) -> int:
        return self.random.randint(log.log_start_offset, log.log_end_offset)

    def append(self, logs: list[PartitionLog]) -> None:
        """Copies for two followed logs, and a new batch for one that is led, in one group."""
        random = self.random
        self.epoch += random.random() < 0.2
        group: list[Append | Replicated] = []
        ends = {log.partition_id: log.log_end_offset for log in logs}
        for _ in range(random.randrange(1, 6)):
            log = random.choice(logs)
            data = bytearray(self.batch(log is logs[2]))
            view, header = memoryview(data), parse_header(data)
            if log is logs[2]:
                group.append(Append(log, view, header, NOW))
                continue
            stamp(view, ends[log.partition_id], self.epoch)
            ends[log.partition_id] += header.record_count
            group.append(Replicated(log, view, parse_header(data), NOW))
        results = self.storage.commit(group)
        if not all(isinstance(result, Appended) for result in results):
            raise SystemExit(f"refused: {results}")
        for log in logs[:2]:
            self.storage.raise_high_watermark(log, self.place(log))

    def batch(self, led: bool) -> bytes:
        random = self.random
        payload = random.randbytes(random.choice(SIZES))
        producer = -1 if led else random.choice((-1, 1, 2))
        sequence = -1
        if producer >= 0:
            sequence = self.sequences.get(producer, 0)
            self.sequences[producer] = sequence + 2
        return encode(
            [payload[:50], payload[50:]],
            timestamps=NOW + random.randrange(100),
            producer_id=producer,
            producer_epoch=0 if producer >= 0 else -1,
            base_sequence=sequence,
        )


def main(folder: str, seed: str, *flags: str) -> None:
    """See the head of the module."""
    if "--no-sync" in flags:
        opened = lmdb.Environment
        lmdb.open = lambda *args, **options: opened(*args, **(options | {"sync": False}))
    storage = Storage.open(Path(folder), quota_bytes=QUOTA_BYTES, reserve_bytes=MIB)
    ours, theirs = socket.socketpair()
    for _ in Life(storage, int(seed)).steps():
        ours.send(b"done")
        theirs.recv(16)
    storage.close(clean=True)
    ours.close()
    theirs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
