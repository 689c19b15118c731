"""One partition's log as the node's threads see it."""

from typing import TYPE_CHECKING, Final, NamedTuple

from tailrace.protocol.limits import KIB

from .epochs import Epochs, latest
from .schema import PartitionRow

if TYPE_CHECKING:
    from lmdb import _Database as Database

PartitionKey = tuple[bytes, int]
"""Topic id and partition number."""


def partition_name(topic_id: bytes, partition: int) -> str:
    """For messages, as long as the topic's name is not known."""
    return f"{topic_id.hex()}-{partition}"


class Head(NamedTuple):
    """The oldest batch of a log, as far as retention needs it."""

    last_offset: int
    max_timestamp: int
    size: int


class LastBatch(NamedTuple):
    """The last batch of a log, as it is stored."""

    base_offset: int
    last_offset: int
    batch: bytes


LAST_BATCH_BYTES_MAX: Final = 4 * KIB
"""Larger batches are not kept in memory: to look one up costs less than to copy it."""


class PartitionLog:
    """The state of a log after its last commit.

    Only the writer thread changes it, and only after the commit; other threads read single attributes.
    `high_watermark` follows the log end by itself while `sole_replica` is set and batches are new, not copies
    of a leader's; otherwise the node raises it (`Storage.raise_high_watermark`), and `stored_high_watermark`
    is behind until the log's next commit. Batches from `hot_offset` on were appended lately by this process,
    so that reading them does not wait for a disk. The last one is `last_batch`, if it was just appended and
    is small: those who wait for it need not look it up. `name` is for messages: with the topic's as soon as
    the cluster state tells it.
    """

    __slots__ = (
        "database",
        "epochs",
        "head",
        "high_watermark",
        "hot_offset",
        "last_batch",
        "live_pages",
        "log_end_offset",
        "log_start_offset",
        "max_timestamp",
        "name",
        "partition",
        "partition_id",
        "removed",
        "size_bytes",
        "sole_replica",
        "stored_high_watermark",
        "topic_id",
    )

    def __init__(
        self,
        partition_id: int,
        row: PartitionRow,
        database: "Database",
        live_pages: int,
        epochs: Epochs = (),
    ) -> None:
        self.partition_id: Final = partition_id
        self.topic_id: Final = row.topic_id
        self.partition: Final = row.partition
        self.name = partition_name(row.topic_id, row.partition)
        self.database = database
        self.live_pages = live_pages
        self.log_start_offset = row.log_start_offset
        self.log_end_offset = row.log_end_offset
        self.high_watermark = self.stored_high_watermark = row.high_watermark
        self.epochs = epochs
        self.max_timestamp = row.max_timestamp
        self.size_bytes = row.size_bytes
        self.hot_offset = row.log_end_offset
        self.sole_replica = True
        self.removed = False
        self.head: Head | None = None
        self.last_batch: LastBatch | None = None

    @property
    def key(self) -> PartitionKey:
        """Where `Storage.logs` holds it."""
        return self.topic_id, self.partition

    @property
    def leader_epoch(self) -> int:
        """The newest of `epochs`, also if it has no batch; -1 if there is none."""
        return latest(self.epochs)

    @property
    def epoch_start(self) -> int:
        """Where the newest leader epoch begins."""
        return self.epochs[-1][1] if self.epochs else 0

    def row(self) -> PartitionRow:
        """As it is to be stored: only the high watermark may have been lower at the last commit."""
        return PartitionRow(
            topic_id=self.topic_id,
            partition=self.partition,
            flags=0,
            log_start_offset=self.log_start_offset,
            log_end_offset=self.log_end_offset,
            high_watermark=self.high_watermark,
            leader_epoch=self.leader_epoch,
            max_timestamp=self.max_timestamp,
            size_bytes=self.size_bytes,
        )

    def adopt(
        self, row: PartitionRow, epochs: Epochs | None = None, last_batch: LastBatch | None = None
    ) -> None:
        """Take over what was committed. A reader may see one attribute new and another old.

        `epochs`: the new ones, if they changed. `last_batch`: the last batch, if it is known.
        """
        self.last_batch = last_batch
        if epochs is not None:
            self.epochs = epochs
        self.max_timestamp = row.max_timestamp
        self.size_bytes = row.size_bytes
        self.log_start_offset = row.log_start_offset
        self.log_end_offset = row.log_end_offset
        # Another thread may have raised it since the row was made. Cutting the log takes it down.
        self.stored_high_watermark = row.high_watermark
        if row.high_watermark > self.high_watermark:
            self.high_watermark = row.high_watermark
