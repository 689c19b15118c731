"""The bounds that peers and users meet, named once. Bytes unless the name says otherwise.

Timers and internal sizes are constants of the modules that own them.
"""

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
BATCH_HEADERS_MAX: Final = 1_000_000
"""Headers of all records of a batch; a decoded one costs many times its bytes on the wire."""
PRODUCER_WINDOW_BATCHES: Final = 64
"""Batches a partition remembers of each producer id, to recognise a retry."""
IN_FLIGHT_BATCHES_MAX: Final = 32
"""Unacknowledged batches of one producer in one partition; at most half the window above, so that an answer
that others overtake need not hold up what follows."""
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
SOCKETS_PER_PROCESS_MAX: Final = 8_192
"""ZeroMQ sockets; a connection takes three."""

# --- producer ----------------------------------------------------------------
PRODUCE_REQUEST_BYTES: Final = 1 * MIB
"""Batches gather into one produce request up to this; a larger batch travels alone."""
PRODUCE_IN_FLIGHT_BYTES_MAX: Final = 8 * MIB
"""What one producer has sent to one node without an answer; below IN_FLIGHT_BYTES_PER_CLIENT_MAX. Enough to
keep a disk busy whose sync takes 5 ms, and little enough to stay in the processor's caches on its way: with
32 MiB, records of 64 KiB and more went half as fast, at twice the node's CPU (benchmarks/load.py)."""
UNHEARD_BYTES_MAX: Final = 4 * MIB
"""What a producer with acks=0 sends to a node before it waits for one answer, and so for the node's disk: the
node drops what is over IN_FLIGHT_BYTES_PER_CLIENT_MAX."""

# --- node --------------------------------------------------------------------
GROUP_COMMIT_BYTES_MAX: Final = 16 * MIB
"""Batches that go into one transaction."""
IN_FLIGHT_BYTES_PER_CLIENT_MAX: Final = 64 * MIB
"""Produce bytes of one connection that wait for the writer."""
IN_FLIGHT_BYTES_MAX: Final = 256 * MIB
"""Produce bytes of all connections that wait for the writer."""
PARKED_FETCHES_MAX: Final = 10_000
"""Fetches that wait for records or for the reader thread."""
PARKED_PARTITIONS_MAX: Final = 200_000
"""Partitions that fetch sessions, or fetches of followers, wait for, summed over them."""
FETCH_SESSIONS_MAX: Final = 20_000
"""Fetch sessions of all connections. Partitions of one: PARTITIONS_PER_REQUEST_MAX, of all:
PARKED_PARTITIONS_MAX."""
FETCH_READINGS_MAX: Final = 64
"""Partitions of a session that one reply is made of at most, so that a fetch costs what it brings."""
FETCHES_PER_CLIENT_MAX: Final = 256
"""Fetches of one connection that wait."""
FETCH_REPLY_BYTES_MAX: Final = 8 * MIB
"""A reply ends after the batch that passes this, however much the fetch allows: what one peer reads at
a time is what the others wait for."""
FETCH_REPLY_BATCHES_MAX: Final = FRAMES_PER_MESSAGE_MAX - 1
UNSENT_BYTES_PER_CLIENT_MAX: Final = 64 * MIB
"""Fetched bytes that one connection has asked for and not read; above it, its fetches are BUSY."""
UNSENT_BYTES_MAX: Final = 512 * MIB
"""The same over all connections."""
UNSENT_REPLY_BYTES_MIN: Final = 16 * KIB
"""Smaller replies are not counted: of them, SEND_HIGH_WATER_MESSAGES is the bound."""
READS_QUEUED_MAX: Final = 1_000
"""Reads that wait for the reader thread."""
REQUEST_BURST_MAX: Final = 128
"""Requests taken in before replies, heartbeats and parked fetches have their turn."""
DELETED_TOPICS_REMEMBERED_MAX: Final = 10_000
"""Topic ids of which a node can say that they were deleted."""
PARTITIONS_PER_NODE_MAX: Final = 4_000
"""LMDB named databases cost 10 us a read transaction at this number."""
OPENINGS_KEPT_MAX: Final = 128
"""Openings of its storage that a node remembers: after more without a registration it counts as one with an
older copy of it. As many of its own the coordinator."""
STORAGE_RESERVE_BYTES: Final = 64 * MIB
"""Kept free below the quota and on the disk, so that retention can always work."""
BALLAST_BYTES: Final = 16 * MIB
"""A file that is given up when the disk is full, so that deleting has room."""

# --- replication -------------------------------------------------------------
REPLICA_LAG_MS_MAX: Final = 10_000
"""A follower that has not had everything for so long leaves the in-sync replicas."""
REPLICA_FETCHES_PER_NODE_MAX: Final = 8
"""Fetches of one follower at one leader. A partition is in one of them at most."""
WAITING_PRODUCES_MAX: Final = 100_000
"""Produce requests of one node that are on its disk and wait for other replicas: less than 1 KB each."""
LARGE_COPY_BYTES_MIN: Final = 2 * MIB
"""After an answer that brought so much of a partition, a follower is behind, and reads on while that is being
written. With less there is little to gain: it costs a message, and makes for smaller commits."""
SMALL_COPY_BYTES_MAX: Final = 64 * KIB
"""What a follower has to write of a partition at a time is so little if it is not behind."""
COPY_COMMIT_BYTES_MIN: Final = 384 * KIB
"""Of the partitions that it is behind with, a follower writes so much in one commit, or more where commits
take long whatever their size."""
COPY_AHEAD_BYTES_MAX: Final = 6 * MIB
"""With so much to write, a follower fetches nothing more of a partition that has a part in it."""
REPLICA_FETCH_BYTES_MAX: Final = 4 * MIB
"""What a follower asks for at a time."""
REPLICA_FETCH_WAIT_MS: Final = 500
"""How long a leader may keep a follower's fetch that has nothing to bring."""

# --- coordinator -------------------------------------------------------------
TOPICS_MAX: Final = 10_000
PARTITIONS_PER_TOPIC_MAX: Final = 4_000
PARTITIONS_MAX: Final = 100_000
NODES_MAX: Final = 1_000
REPLICATION_FACTOR_MAX: Final = 16
COMPARED_NAMES_MAX: Final = 1_000
"""Names that are looked at to find the one that a user may have meant."""
TOMBSTONES_MAX: Final = 100_000
"""Deleted topic ids that the coordinator remembers for nodes that were away."""
PRODUCER_EPOCH_MAX: Final = 2**15 - 1
"""A batch holds it in 16 bits; after it a producer gets a new id."""
PRODUCER_EPOCHS_MAX: Final = 100_000
"""Producer ids whose epoch was raised; beyond this a producer gets a new id instead."""
SNAPSHOT_BYTES_MAX: Final = HEADER_BYTES_MAX - 512 * KIB
"""The encoded cluster state; the rest of the header is for what travels beside it."""
COORDINATOR_BURST_MAX: Final = 1_000
"""Requests that are decided together and stored in one transaction."""
COORDINATOR_BURST_BYTES_MAX: Final = 64 * MIB
"""With this much in hand, or a single larger message, the coordinator does not take in more."""
PARTITIONS_PER_UPDATE_MAX: Final = 10_000
"""Nodes that die together are marked dead in one update unless they hold more partitions than this."""
PARKED_CREATIONS_MAX: Final = 1_000
"""CreateTopic requests that wait for the leaders to open the topic's partitions."""
COORDINATOR_MAP_BYTES: Final = 1 * GIB
COORDINATOR_ROOM_BYTES: Final = 4 * MIB
"""Disk that each of the coordinator's stores takes at once, so that a full disk does not stop it later."""
LOGGED_PEERS_MAX: Final = 1_024
"""Peers that a process remembers to have complained about."""

# --- groups ------------------------------------------------------------------
GROUPS_MAX: Final = 10_000
MEMBERS_PER_GROUP_MAX: Final = 2_000
SESSION_TIMEOUT_MS_MIN: Final = 1_000
SESSION_TIMEOUT_MS_MAX: Final = 1_800_000
"""How long a member may be silent before the others get its partitions."""
RECONNECT_WITHIN_MS: Final = 2_000
"""A member that lives has spoken to a coordinator that started anew, or stood still, by then: its pauses are
a quarter second at most. A static member that has not may be replaced by another process."""
INSTANCE_ID_PATIENCE_MS: Final = 3_000
"""So long a member asks again whether its `group_instance_id` is free."""
GROUP_WAIT_MS_MAX: Final = SESSION_TIMEOUT_MS_MAX // 3
"""How long the coordinator may keep a member's heartbeat."""
OFFSET_METADATA_CHARACTERS_MAX: Final = 1_024
OFFSETS_PER_GROUP_MAX: Final = 100_000
GROUP_STORE_MAP_BYTES: Final = 4 * GIB
"""The address space of the store of groups and offsets."""
GROUP_STORE_ROWS_BYTES_MAX: Final = 1 * GIB
"""What all groups' members and offsets may take together. The rest of the map is for half-full pages, and for
the copies that one commit makes, so that deleting works whatever is stored."""

# --- clients -----------------------------------------------------------------
RETRY_BACKOFF_MS_FIRST: Final = 10
RETRY_BACKOFF_MS_MAX: Final = 1_000
"""Pauses between attempts double from the first to the longest."""
UNSENT_REQUESTS_MAX: Final = 10_000
"""Requests that wait for one destination's connection."""
RECEIVE_BURST_MESSAGES: Final = 256
"""Messages taken from one connection before the others have their turn."""
CONNECT_PATIENCE_MS_FIRST: Final = 300
CONNECT_PATIENCE_MS_MAX: Final = 3_000
"""How long a connection may take before another address is tried; doubles with each round."""
REFRESH_INTERVAL_MS_MIN: Final = 5
"""A client asks for the cluster state at most this often of its own accord."""
BEAT_SILENCE_MS_MAX: Final = 3_500
"""Without a beat of the coordinator for so long, a client subscribes anew."""
SNAPSHOT_TIMEOUT_MS: Final = 5_000
"""For the coordinator's answer to a request for a snapshot, the time to connect included."""
UPDATES_BUFFERED_MAX: Final = 1_000
"""Updates kept while a snapshot is on its way; more only mean another snapshot."""

# --- the local path ----------------------------------------------------------
ARENA_BYTES: Final = 128 * MIB
"""Memory that a client shares with one node at most; it is taken as it is used."""
ARENA_LENT_BYTES_MAX: Final = ARENA_BYTES // 2
"""Fetched batches that may wait in an arena to be decoded; what comes on top of that is copied out."""
ARENA_BYTES_MAX: Final = 1 * GIB
"""What a node takes for an arena."""
ARENA_TOKEN_BYTES: Final = 16
ARENAS_MAX: Final = 4_000
"""Clients that a node shares memory with; the others send and get frames."""
DESCRIPTOR_BYTES_MAX: Final = 16 * KIB
PIPED_BYTES_MAX: Final = 4 * KIB
"""A message in a pipe, all of it: what Linux writes into one in one piece (PIPE_BUF)."""
PIPED_PARTS_MAX: Final = 16
"""Its header and payload frames."""
PIPED_CLIENTS_MAX: Final = 4_000
"""Clients that a node has pipes from; what the others send goes over their connections."""
DESCRIPTORS_PER_CLIENT: Final = 3
"""Files that a server opens for one on its machine: its connection, and two pipes or its subscription."""
DESCRIPTORS_KEPT: Final = 256
"""Files that a server may open for all but clients; a quarter of them all, where that is less."""
LOCAL_PAYLOAD_BYTES_MIN: Final = PIPED_BYTES_MAX - 256
"""Smaller payloads travel as frames: with their header they fit into a pipe, which is faster."""
FETCH_SLOT_BYTES_FIRST: Final = 1 * MIB + 64 * KIB
FETCH_SLOT_BYTES_MAX: Final = 4 * MIB + 64 * KIB
"""What a fetch gets at most in one reply by way of shared memory. Each fetch wakes half a dozen threads, so
few and large ones are cheap; while records trickle in, a slot of the first size will do. A batch that is
larger than the slot comes as a frame. The odd 64 KiB are for what batches hold besides values: so four of
1 MiB come at a time, which were three."""

# --- consumer ----------------------------------------------------------------
FETCH_BUFFER_BYTES_MAX: Final = 64 * MIB
"""Fetched batches of one consumer that wait to be handed over; no fetch goes out above it."""
FETCHES_AHEAD: Final = 2
"""A partition is fetched while it has less than so many full fetches in its buffer: with one, the consumer
waits for the node after each; more brings nothing."""
FETCHES_PER_NODE_MAX: Final = 4
"""Fetches of one consumer at one node. A partition is in one of them at most; the second lets a busy
partition go on while quiet ones wait for records."""
MAX_POLL_RECORDS_MAX: Final = 1_000_000
OFFSET_STORE_MAP_BYTES: Final = 4 * GIB
"""The address space, and so the bound, of one partition's environment in a local offset store: its offset
and the application's keys. It takes no space on disk before it is used."""
LOCAL_STATE_KEY_BYTES_MAX: Final = 511
"""What LMDB takes as a key."""
LOCAL_STATE_VALUE_BYTES_MAX: Final = 64 * MIB

assert IN_FLIGHT_BATCHES_MAX * 2 <= PRODUCER_WINDOW_BATCHES
assert RECORD_BYTES_MAX < BATCH_BYTES_MAX <= BATCH_BODY_BYTES_MAX <= FETCH_BYTES_MAX
assert BATCH_BYTES_MAX <= GROUP_COMMIT_BYTES_MAX <= IN_FLIGHT_BYTES_PER_CLIENT_MAX <= IN_FLIGHT_BYTES_MAX
assert PRODUCE_BATCHES_MAX < FRAMES_PER_MESSAGE_MAX
assert PRODUCE_IN_FLIGHT_BYTES_MAX + BATCH_BYTES_MAX <= IN_FLIGHT_BYTES_PER_CLIENT_MAX
assert FETCHES_PER_CLIENT_MAX <= PARKED_FETCHES_MAX <= FETCH_SESSIONS_MAX
assert FRAMES_PER_MESSAGE_MAX * 9 < DESCRIPTOR_BYTES_MAX
assert PRODUCE_IN_FLIGHT_BYTES_MAX + BATCH_BYTES_MAX < ARENA_BYTES <= ARENA_BYTES_MAX
assert BATCH_BYTES_MAX + FETCH_REPLY_BYTES_MAX <= UNSENT_BYTES_PER_CLIENT_MAX <= UNSENT_BYTES_MAX
assert SMALL_COPY_BYTES_MAX <= COPY_COMMIT_BYTES_MIN <= LARGE_COPY_BYTES_MIN
assert LARGE_COPY_BYTES_MIN <= REPLICA_FETCH_BYTES_MAX <= FETCH_REPLY_BYTES_MAX
assert PARTITIONS_PER_REQUEST_MAX <= PARKED_PARTITIONS_MAX
assert PARTITIONS_PER_NODE_MAX <= PARTITIONS_PER_UPDATE_MAX
assert PARTITIONS_PER_UPDATE_MAX * 416 < HEADER_BYTES_MAX  # 16 replicas that move: up to 400 bytes
assert TOPICS_MAX * 20 + SNAPSHOT_BYTES_MAX < HEADER_BYTES_MAX
