"""What `Consumer.metrics()` tells."""

from typing import Any

from .assigned import AssignedPartition
from .session import Session


def metrics_of(session: Session) -> dict[str, Any]:
    """Counts since the consumer was made, sizes in bytes, how batches travel, each partition as it is."""
    fetched = session.fetcher.statistics
    return {
        "records_handed_over": session.hand_over.records_handed,
        "records_left_out": session.hand_over.records_left_out,
        "bytes_fetched": fetched.bytes,
        "bytes_buffered": session.fetcher.buffered_bytes,
        "fetches": fetched.fetches,
        "fetch_errors": fetched.errors,
        "offset_resets": fetched.resets,
        "offsets_stored": session.commits.writes,
        "paths": session.engine.paths,
        "partitions": {
            f"{name.topic}-{name.partition}": _partition(partition)
            for name, partition in session.assignment.partitions.items()
        },
    }


def _partition(partition: AssignedPartition) -> dict[str, Any]:
    known = partition.high_watermark >= 0 and partition.position >= 0
    return {
        "position": partition.position,
        "high_watermark": partition.high_watermark if known else None,
        "lag": max(0, partition.high_watermark - partition.position) if known else None,
        "bytes_buffered": partition.buffered_bytes,
        "paused": partition.paused,
    }
