"""Every bound of the system, named once. Bytes unless the name says otherwise."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- names -------------------------------------------------------------------
NAME_LENGTH_MAX: Final = 249
"""Characters in a topic, group or node name."""

# --- batches -----------------------------------------------------------------
BATCH_BYTES_MAX: Final = 16 * MIB
"""A whole batch, header included, as it travels and as it is stored."""
BATCH_BODY_BYTES_MAX: Final = 64 * MIB
"""A batch's body once decompressed."""
BATCH_RECORDS_MAX: Final = 1_000_000
RECORD_BYTES_MAX: Final = 8 * MIB
"""Key + value + headers of one record."""
HEADERS_PER_RECORD_MAX: Final = 1_000
PRODUCER_WINDOW_BATCHES: Final = 64
"""Batches a partition remembers of each producer id, to recognise a retry."""
IN_FLIGHT_BATCHES_MAX: Final = 32
"""Unacknowledged batches of one producer in one partition; at most half the window above."""
TIMESTAMP_AHEAD_MS_MAX: Final = 3_600_000
"""How far a record's timestamp may lie in the node's future."""

# --- frames ------------------------------------------------------------------
HEADER_BYTES_MAX: Final = 4 * MIB
"""The msgpack header of one message, checked before it is decoded."""
FRAME_BYTES_MAX: Final = BATCH_BYTES_MAX
FRAMES_PER_MESSAGE_MAX: Final = 1_024
PRODUCE_BATCHES_MAX: Final = 256
"""Batches in one produce request."""
PARTITIONS_PER_REQUEST_MAX: Final = 10_000
FETCH_BYTES_MAX: Final = 64 * MIB
FETCH_WAIT_MS_MAX: Final = 60_000
SEND_HIGH_WATER_MESSAGES: Final = 10_000
RECEIVE_HIGH_WATER_MESSAGES: Final = 1_000

# --- node --------------------------------------------------------------------
GROUP_COMMIT_BYTES_MAX: Final = 16 * MIB
"""Batches that go into one transaction."""
IN_FLIGHT_BYTES_PER_CLIENT_MAX: Final = 64 * MIB
"""Produce bytes of one connection that wait for the writer."""
IN_FLIGHT_BYTES_MAX: Final = 256 * MIB
"""Produce bytes of all connections that wait for the writer."""
PARKED_FETCHES_MAX: Final = 10_000
PARTITIONS_PER_NODE_MAX: Final = 4_000
"""LMDB named databases cost 10 us a read transaction at this number."""
STORAGE_RESERVE_BYTES: Final = 64 * MIB
"""Kept free below the quota and on the disk, so that retention can always work."""
BALLAST_BYTES: Final = 16 * MIB
"""A file that is given up when the disk is full, so that deleting has room."""

# --- coordinator -------------------------------------------------------------
TOPICS_MAX: Final = 10_000
PARTITIONS_PER_TOPIC_MAX: Final = 4_000
PARTITIONS_MAX: Final = 100_000
NODES_MAX: Final = 1_000
REPLICATION_FACTOR_MAX: Final = 16
TOMBSTONES_MAX: Final = 100_000
"""Deleted topic ids that the coordinator remembers for nodes that were away."""

assert IN_FLIGHT_BATCHES_MAX * 2 <= PRODUCER_WINDOW_BATCHES
assert RECORD_BYTES_MAX < BATCH_BYTES_MAX <= BATCH_BODY_BYTES_MAX <= FETCH_BYTES_MAX
assert BATCH_BYTES_MAX <= GROUP_COMMIT_BYTES_MAX <= IN_FLIGHT_BYTES_PER_CLIENT_MAX <= IN_FLIGHT_BYTES_MAX
assert PRODUCE_BATCHES_MAX < FRAMES_PER_MESSAGE_MAX
