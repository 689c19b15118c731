"""What lies in the replicas of a node that has stopped, for the history."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from tailrace.bench.records import marks_of
from tailrace.node.storage.stopped import stored_batches, stored_partitions
from tailrace.node.storage.verify import verify_folder
from tailrace.protocol.decode import decode

from .history import Event, Replica, Stored


def replica_events(folder: Path, node: int, topic_id: bytes, record_bytes: int) -> Iterator[Event]:
    """All of one topic. Raises TailraceError when the folder cannot be read, or holds what it should not."""
    problems = verify_folder(folder).problems
    for row in stored_partitions(folder):
        if row.topic_id != topic_id:
            continue
        yield Replica(
            node=node,
            partition=row.partition,
            start=row.log_start_offset,
            end=row.log_end_offset,
            high_watermark=row.high_watermark,
            problems=problems,
        )
        problems = []
        for data in stored_batches(folder, topic_id, row.partition):
            batch = decode(data)
            marks = marks_of(batch.values, record_bytes)
            yield Stored(
                node=node,
                partition=row.partition,
                offset=batch.offsets[0],
                digest=zlib.crc32(data),
                producers=marks.producers,
                sequences=marks.sequences,
            )
