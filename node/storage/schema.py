"""Every table, key and value of a node's storage, written once.

One LMDB environment (0.9 file format) holds:

    partitions            u32 partition id                    -> PartitionRow
    time_index            u32 partition id, u64 biased time   -> u64 last offset
    epochs                u32 partition id, u32 leader epoch  -> u64 start offset
    producers             u32 partition id, u64 producer id   -> ProducerRow
    aborted_transactions  u32 partition id, u64 last offset   -> (reserved)
    node                  name                                -> see NODE_*
    log-<partition id>    u64 last offset, native order       -> one batch

Keys are big endian, so that LMDB's byte order is their numeric order; values are little endian.
The keys of a log are LMDB integer keys, which are in the machine's own order. A partition id is
a number of this environment alone: it is given once and never again. The grammar with all
fields is in `docs/storage.md`.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

FORMAT_VERSION: Final = 1

PARTITIONS: Final = b"partitions"
TIME_INDEX: Final = b"time_index"
EPOCHS: Final = b"epochs"
PRODUCERS: Final = b"producers"
ABORTED_TRANSACTIONS: Final = b"aborted_transactions"
NODE: Final = b"node"
TABLES: Final = (PARTITIONS, TIME_INDEX, EPOCHS, PRODUCERS, ABORTED_TRANSACTIONS, NODE)

NODE_FORMAT_VERSION: Final = b"format_version"
"""u64."""
NODE_STORAGE_ID: Final = b"storage_id"
"""UTF-8 text, a new UUID for each new environment."""
NODE_CLEAN: Final = b"clean"
"""u64: 1 after a clean stop, 0 while a process has the storage open."""
NODE_OPENINGS: Final = b"openings"
"""u64[]: random marks of the last openings, the newest at the end: they tell an older copy (R7)."""
NODE_NEXT_PARTITION_ID: Final = b"next_partition_id"
"""u64."""
NODE_CONTROLLER_EPOCH: Final = b"controller_epoch"
"""u64: the highest that this node has seen."""

TIME_BIAS: Final = 1 << 63
"""Added to a signed timestamp, so that the byte order of keys is the order of times."""

NO_TIMESTAMP: Final = -1
NO_TRANSACTION: Final = -1

_OFFSET_KEY: Final = Struct("=Q")
_PARTITION_KEY: Final = Struct(">I")
_PAIR_KEY: Final = Struct(">IQ")
_EPOCH_KEY: Final = Struct(">II")
_NUMBER: Final = Struct("<Q")
_PARTITION_ROW: Final = Struct("<16sIIqqqiqq")
_PRODUCER_HEAD: Final = Struct("<hHiqq")

offset_key = _OFFSET_KEY.pack
"""Key of the batch that ends at this offset."""
partition_key = _PARTITION_KEY.pack
producer_key = _PAIR_KEY.pack
epoch_key = _EPOCH_KEY.pack
pack_number = _NUMBER.pack

WINDOW_ENTRY: Final = Struct("<iIq")
"""One batch in a producer's window: base sequence, record count, base offset."""

PARTITION_DELETING: Final = 1
"""Flag in `PartitionRow.flags`: the partition was removed, its log is being deleted in slices."""


class PartitionRow(NamedTuple):
    """What is stored of one partition besides its batches. Changes in the transaction of the batches.

    `size_bytes` is the sum of the stored batches' lengths, `max_timestamp` the highest that any
    batch has had since the log was last empty (milliseconds, -1: none).
    """

    topic_id: bytes
    partition: int
    flags: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    leader_epoch: int
    max_timestamp: int
    size_bytes: int

    def pack(self) -> bytes:
        """As stored."""
        return _PARTITION_ROW.pack(*self)


class ProducerRow(NamedTuple):
    """What a partition remembers of one producer id.

    `window` holds the last batches as `WINDOW_ENTRY`s, oldest first. `next_sequence` is the one
    that continues without a gap. `last_timestamp` is the node's clock at the last append, in
    milliseconds. `transaction_offset` is the first offset of the open transaction, or -1.
    """

    epoch: int
    next_sequence: int
    last_timestamp: int
    transaction_offset: int
    window: bytes

    def pack(self) -> bytes:
        """As stored."""
        epoch, next_sequence, last_timestamp, transaction_offset, window = self
        count = len(window) // WINDOW_ENTRY.size
        return _PRODUCER_HEAD.pack(epoch, count, next_sequence, last_timestamp, transaction_offset) + window


def log_name(partition_id: int) -> bytes:
    """Name of the database that holds a partition's batches."""
    return b"log-%08x" % partition_id


def read_offset_key(key: bytes | memoryview) -> int:
    """The last offset that a log's key stands for."""
    return int(_OFFSET_KEY.unpack(key)[0])


def read_partition_key(key: bytes | memoryview) -> int:
    """The partition id that a key of any table starts with."""
    return int(_PARTITION_KEY.unpack_from(key)[0])


def time_key(partition_id: int, timestamp: int) -> bytes:
    """Key in the time index."""
    return _PAIR_KEY.pack(partition_id, timestamp + TIME_BIAS)


def read_time_key(key: bytes | memoryview) -> tuple[int, int]:
    """(partition id, timestamp) of a time index key."""
    partition_id, biased = _PAIR_KEY.unpack(key)
    return partition_id, biased - TIME_BIAS


def read_pair_key(key: bytes | memoryview) -> tuple[int, int]:
    """(partition id, producer id) of a producers key."""
    partition_id, number = _PAIR_KEY.unpack(key)
    return partition_id, number


def read_epoch_key(key: bytes | memoryview) -> tuple[int, int]:
    """(partition id, leader epoch) of an epochs key."""
    partition_id, leader_epoch = _EPOCH_KEY.unpack(key)
    return partition_id, leader_epoch


def read_number(value: bytes | memoryview) -> int:
    """An unsigned 64-bit value: an offset, or a number of the node table."""
    return int(_NUMBER.unpack(value)[0])


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """An array of them."""
    return b"".join(map(pack_number, numbers))


def read_numbers(value: bytes) -> list[int]:
    """As `pack_numbers` packed them."""
    return [number for (number,) in _NUMBER.iter_unpack(value)]


def read_partition_row(value: bytes | memoryview) -> PartitionRow:
    """The row as stored by `PartitionRow.pack`."""
    return PartitionRow._make(_PARTITION_ROW.unpack(value))


def read_producer_row(value: bytes | memoryview) -> ProducerRow:
    """The row as stored by `ProducerRow.pack`."""
    epoch, count, next_sequence, last_timestamp, transaction_offset = _PRODUCER_HEAD.unpack_from(value)
    window = bytes(value[_PRODUCER_HEAD.size :])
    if len(window) != count * WINDOW_ENTRY.size:
        raise ValueError(f"a producer row of {len(value)} bytes cannot hold {count} batches")
    return ProducerRow(epoch, next_sequence, last_timestamp, transaction_offset, window)
