"""The messages of the wire protocol: one struct a request and a reply.

A message is one header frame, then payload frames. The header is a msgpack array
`[kind, request id, version, fields...]`; the payload frames are batches, one a frame, in the
order of the entries that speak of them. Replies repeat the request id. The grammar is in
`docs/protocol.md`.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from .admin_messages import AdminReply, AdminRequest
from .cluster import (
    Change,
    Int32,
    Int64,
    Listener,
    Name,
    NodeInfo,
    PartitionIndex,
    Snapshot,
    TopicId,
    TopicInfo,
)
from .group_messages import GroupReply, GroupRequest
from .limits import (
    FETCH_BYTES_MAX,
    FETCH_WAIT_MS_MAX,
    OPENINGS_KEPT_MAX,
    PARTITIONS_MAX,
    PARTITIONS_PER_REQUEST_MAX,
    PRODUCE_BATCHES_MAX,
    TOPICS_MAX,
)
from .local_messages import LocalReply, LocalRequest
from .message import OK as OK
from .message import PROTOCOL_VERSION as PROTOCOL_VERSION
from .message import ErrorInfo as ErrorInfo
from .message import Message as Message
from .message import Text as Text
from .replica_messages import AlterIsr, LeaveIsr, ReplicaReply, ReplicaRequest

EARLIEST: Final = -2
"""In place of a timestamp in `ListOffsets`: the log start offset."""
LATEST: Final = -1
"""In place of a timestamp in `ListOffsets`: the high watermark."""
NO_EPOCH: Final = -1
"""No leader epoch."""

ACKS_NONE: Final = 0
ACKS_LEADER: Final = 1
ACKS_ALL: Final = -1

# ------------------------------------------------------------------ to a node


class ProduceEntry(Struct, frozen=True, array_like=True):
    """Where the batch in the payload frame of the same place goes."""

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32


class Produce(Message, frozen=True, kw_only=True, tag=1):
    """Append batches. Answered by `Produced`, after the commit; with acks=0 not at all."""

    acks: Annotated[int, Meta(ge=-1, le=1)] = ACKS_ALL
    entries: Annotated[list[ProduceEntry], Meta(min_length=1, max_length=PRODUCE_BATCHES_MAX)]


class ProduceResult(Struct, frozen=True, array_like=True):
    """What became of one batch. `base_offset` is its first record's offset, -1 on an error."""

    error: ErrorInfo
    base_offset: Int64
    log_start_offset: Int64


class Produced(Message, frozen=True, tag=101):
    """Results in the order of the request's entries."""

    results: Annotated[list[ProduceResult], Meta(max_length=PRODUCE_BATCHES_MAX)] = []


class FetchEntry(Struct, frozen=True, array_like=True):
    """One partition to read from `offset`, at most `max_bytes` (but always one whole batch)."""

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32
    offset: Int64
    max_bytes: Annotated[int, Meta(ge=1, le=FETCH_BYTES_MAX)]


class Fetch(Message, frozen=True, kw_only=True, tag=2):
    """Read many partitions; waits up to `max_wait_ms` until `min_bytes` are there or an entry fails.

    In a `session` the fetch of `epoch` 0 names all partitions, the next ones what has changed.
    """

    max_wait_ms: Annotated[int, Meta(ge=0, le=FETCH_WAIT_MS_MAX)] = 0
    min_bytes: Annotated[int, Meta(ge=0, le=FETCH_BYTES_MAX)] = 1
    max_bytes: Annotated[int, Meta(ge=1, le=FETCH_BYTES_MAX)] = FETCH_BYTES_MAX
    entries: Annotated[list[FetchEntry], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)]
    session: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class FetchResult(Struct, frozen=True, array_like=True):
    """News of one partition: `batches` payload frames belong to it. Offsets are -1 where unknown."""

    topic_id: TopicId
    partition: PartitionIndex
    error: ErrorInfo
    high_watermark: Int64
    log_start_offset: Int64
    batches: Annotated[int, Meta(ge=0)]


class Fetched(Message, frozen=True, tag=102):
    """Only the partitions with batches or errors, then their batches."""

    results: Annotated[list[FetchResult], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = []


class OffsetQuery(Struct, frozen=True, array_like=True):
    """`timestamp`: milliseconds since 1970, or EARLIEST, or LATEST.

    `ended_epoch`: a leader epoch; LATEST is where it ended then, in place of the high watermark.
    """

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32
    timestamp: Int64
    ended_epoch: Int32 = NO_EPOCH


class ListOffsets(Message, frozen=True, kw_only=True, tag=3):
    """Find offsets by time."""

    queries: Annotated[list[OffsetQuery], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]


class OffsetResult(Struct, frozen=True, array_like=True):
    """The first offset whose timestamp is at or after the asked one; -1, -1 if there is none."""

    error: ErrorInfo
    offset: Int64
    timestamp: Int64


class OffsetsListed(Message, frozen=True, tag=103):
    """Results in the order of the queries."""

    results: Annotated[list[OffsetResult], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = []


class DescribeLogs(Message, frozen=True, tag=4):
    """What does this node hold?"""


class LogInfo(Struct, frozen=True, array_like=True):
    """One partition's log on one node. `size_bytes` counts the stored batches."""

    topic_id: TopicId
    partition: PartitionIndex
    log_start_offset: Int64
    log_end_offset: Int64
    high_watermark: Int64
    size_bytes: Int64


class LogsDescribed(Message, frozen=True, tag=104):
    """The node's logs, and its space: quota and use, in bytes. `full`: it refuses batches for lack of it."""

    logs: Annotated[list[LogInfo], Meta(max_length=PARTITIONS_MAX)] = []
    used_bytes: Int64 = 0
    quota_bytes: Int64 = 0
    full: bool = False


class Ping(Message, frozen=True, tag=5):
    """Are you there? Both nodes and coordinators answer."""


class Pong(Message, frozen=True, tag=105):
    """Yes."""


# ---------------------------------------------------------- to the coordinator


class GetSnapshot(Message, frozen=True, tag=20):
    """The cluster state, and where its updates are published."""


class SnapshotTaken(Message, frozen=True, tag=120):
    """The state and the PUB socket's endpoints.

    `unclean_elections`: since the coordinator's start, of replicas that may lack records.
    `openings`: the random marks of the last openings of its store, this process's at the end.
    """

    cluster_id: Annotated[str, Meta(max_length=64)] = ""
    publisher: Listener = Listener("")
    snapshot: Snapshot = Snapshot(0, 0, (), ())
    unclean_elections: Int64 = 0
    openings: Annotated[tuple[Int64, ...], Meta(max_length=OPENINGS_KEPT_MAX)] = ()


class RegisterNode(Message, frozen=True, tag=21):
    """A node starts. `topic_ids` are the topics it has logs of.

    `durable`: what it acknowledged is on its disk, whatever has ended it before (`flush: commit`).
    `openings`: the random marks of the last openings of its storage, this process's at the end.
    """

    node_id: Int32 = 0
    listener: Listener = Listener("")
    storage_id: Annotated[str, Meta(max_length=64)] = ""
    rack: Name = ""
    clean: bool = True
    topic_ids: Annotated[list[TopicId], Meta(max_length=TOPICS_MAX)] = []
    durable: bool = True
    openings: Annotated[list[Int64], Meta(max_length=OPENINGS_KEPT_MAX)] = []


class NodeRegistered(Message, frozen=True, tag=121):
    """The node's new epoch, how often to beat, and which of its topics were deleted meanwhile."""

    node: NodeInfo | None = None
    session_timeout_ms: Int64 = 0
    deleted_topics: Annotated[list[TopicId], Meta(max_length=TOPICS_MAX)] = []
    snapshot: Snapshot = Snapshot(0, 0, (), ())


class Heartbeat(Message, frozen=True, tag=22):
    """A node lives, and has applied the state up to `applied_version`."""

    node_id: Int32 = 0
    node_epoch: Int64 = 0
    applied_version: Int64 = 0


class HeartbeatSeen(Message, frozen=True, tag=122):
    """The node's session goes on."""

    controller_epoch: Int64 = 0


class LeaveCluster(Message, frozen=True, tag=23):
    """A node stops cleanly: do not wait for its session to time out."""

    node_id: Int32 = 0
    node_epoch: Int64 = 0


class ClusterLeft(Message, frozen=True, tag=123):
    """The node is marked dead."""


class CreateTopic(Message, frozen=True, tag=24):
    """Answered when the leaders of all partitions have heard of it, or `timeout_ms` is over."""

    name: Text = ""
    partitions: Int32 = 1
    replication_factor: Int32 = 1
    config: Annotated[dict[str, str | int], Meta(max_length=64)] = {}
    timeout_ms: Annotated[int, Meta(ge=0, le=600_000)] = 30_000


class TopicCreated(Message, frozen=True, tag=124):
    """The topic as it is now."""

    topic: TopicInfo | None = None


class DeleteTopic(Message, frozen=True, tag=25):
    """Delete a topic and its records."""

    name: Text = ""


class TopicDeleted(Message, frozen=True, tag=125):
    """The topic is gone from the state; nodes drop its logs as they hear of it."""


class AlterTopic(Message, frozen=True, kw_only=True, tag=27):
    """Add partitions (0: as many as there are) and set configuration; None sets a key to its default.

    Answered when the leaders of new partitions have heard of them, or `timeout_ms` is over.
    """

    name: Text
    partitions: Int32 = 0
    config: Annotated[dict[str, str | int | None], Meta(max_length=64)] = {}
    timeout_ms: Annotated[int, Meta(ge=0, le=600_000)] = 30_000


class TopicAltered(Message, frozen=True, tag=127):
    """The topic as it is now."""

    topic: TopicInfo | None = None


class InitProducer(Message, frozen=True, tag=26):
    """A producer id: a new one for -1, else the same with the next epoch (KIP-360)."""

    producer_id: Int64 = -1
    producer_epoch: Int32 = -1


class ProducerReady(Message, frozen=True, tag=126):
    """The producer id and epoch to put into batches."""

    producer_id: Int64 = -1
    producer_epoch: Int32 = -1


class Failed(Message, frozen=True, tag=100):
    """The whole request failed."""

    error: ErrorInfo = OK


# ------------------------------------------------------------------- published


class Update(Struct, frozen=True, array_like=True, tag=200):
    """Changes that lead from `version - 1` to `version`."""

    controller_epoch: Int64
    version: Int64
    changes: list[Change]


class Beat(Struct, frozen=True, array_like=True, tag=201):
    """The coordinator lives and is at this version; lets a subscriber notice a gap."""

    controller_epoch: Int64
    version: Int64


NodeRequest: TypeAlias = Produce | Fetch | ListOffsets | DescribeLogs | Ping | LocalRequest | ReplicaRequest
CoordinatorRequest: TypeAlias = (
    GetSnapshot
    | RegisterNode
    | Heartbeat
    | LeaveCluster
    | CreateTopic
    | DeleteTopic
    | AlterTopic
    | InitProducer
    | AlterIsr
    | LeaveIsr
    | Ping
    | AdminRequest
    | GroupRequest
)
Request: TypeAlias = NodeRequest | CoordinatorRequest
Reply: TypeAlias = (
    Failed
    | Produced
    | Fetched
    | OffsetsListed
    | LogsDescribed
    | Pong
    | LocalReply
    | SnapshotTaken
    | NodeRegistered
    | HeartbeatSeen
    | ClusterLeft
    | TopicCreated
    | TopicDeleted
    | TopicAltered
    | ProducerReady
    | ReplicaReply
    | AdminReply
    | GroupReply
)
Published: TypeAlias = Update | Beat
