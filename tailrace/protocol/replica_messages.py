"""What replicas of a partition say to each other, and to the coordinator about each other.

A follower is a consumer of its leader that also reads past the high watermark, and ahead of its disk: a fetch
says what it has on disk (RELIABILITY R2), and where to read on. Where the logs part is found with the fetch
itself, by leader epochs, as in KIP-595; the in-sync replicas are changed by compare-and-set, as in KIP-497.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from .cluster import Int32, Int64, NodeIds, PartitionIndex, PartitionInfo, TopicId
from .limits import FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, PARTITIONS_PER_REQUEST_MAX
from .message import ErrorInfo, Message


class ReplicaFetchEntry(Struct, frozen=True, array_like=True):
    """One partition: the follower has everything below `offset` on disk, and reads on at `fetch_offset`.

    What lies between the two, it got in this leader epoch, and writes now; -1 for `fetch_offset` is `offset`.
    `last_epoch` is that of the batch before `fetch_offset`, deleted or not, -1 if there never was one.
    `high_watermark` is the one that the follower knows of, `log_start_offset` where its log starts.
    """

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32
    offset: Int64
    last_epoch: Int32
    high_watermark: Int64
    log_start_offset: Int64 = 0
    fetch_offset: Int64 = -1


class ReplicaFetch(Message, frozen=True, kw_only=True, tag=7):
    """A follower reads on. Waits up to `max_wait_ms` for records."""

    node_id: Int32
    node_epoch: Int64
    max_wait_ms: Annotated[int, Meta(ge=0, le=FETCH_WAIT_MS_MAX)] = 0
    max_bytes: Annotated[int, Meta(ge=1, le=FETCH_BYTES_MAX)] = FETCH_BYTES_MAX
    entries: Annotated[list[ReplicaFetchEntry], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]


class ReplicaFetchResult(Struct, frozen=True, array_like=True):
    """News of one partition: `batches` payload frames belong to it. Offsets are -1 where unknown.

    With `diverging_epoch` from 0 the follower's log is not a part of the leader's: what the leader has of the
    highest epoch up to `last_epoch` is that one, and ends at `diverging_end`. The follower truncates to that
    epoch's end in its own log or to `diverging_end`, whichever is lower, and asks again.
    """

    topic_id: TopicId
    partition: PartitionIndex
    error: ErrorInfo
    high_watermark: Int64
    log_start_offset: Int64
    batches: Annotated[int, Meta(ge=0)] = 0
    diverging_epoch: Int32 = -1
    diverging_end: Int64 = -1


class ReplicaFetched(Message, frozen=True, tag=107):
    """Only partitions with news, then their batches, as they are stored."""

    results: Annotated[list[ReplicaFetchResult], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = []


class ReplicaAckEntry(Struct, frozen=True, array_like=True):
    """One partition: the follower has everything below `offset` on disk."""

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32
    offset: Int64


class ReplicaAck(Message, frozen=True, kw_only=True, tag=8):
    """More has come to a follower's disk while its fetch waits. Not answered: the next fetch says it too."""

    node_id: Int32
    node_epoch: Int64
    entries: Annotated[list[ReplicaAckEntry], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]


class IsrProposal(Struct, frozen=True, array_like=True):
    """What the leader of `leader_epoch` finds in sync, if the partition is still at `partition_epoch`."""

    topic_id: TopicId
    partition: PartitionIndex
    leader_epoch: Int32
    partition_epoch: Int32
    isr: NodeIds


class AlterIsr(Message, frozen=True, kw_only=True, tag=28):
    """A leader's in-sync replicas. `member_epochs`: the node epochs that its followers were seen in as the
    proposals were made (R4); what is asked again has those of the first time."""

    node_id: Int32
    node_epoch: Int64
    proposals: Annotated[list[IsrProposal], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]
    member_epochs: Annotated[dict[Int32, Int64], Meta(max_length=1_000)] = {}


class ReplicaPlace(Struct, frozen=True, array_like=True):
    """A partition that the sender has a replica of."""

    topic_id: TopicId
    partition: PartitionIndex


class LeaveIsr(Message, frozen=True, kw_only=True, tag=29):
    """A node has a fault in its logs of these partitions: its replicas must not count as in sync, nor lead.

    Answered by `IsrAltered`, in the order of `replicas`.
    """

    node_id: Int32
    node_epoch: Int64
    replicas: Annotated[list[ReplicaPlace], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]


class IsrResult(Struct, frozen=True, array_like=True):
    """What became of one proposal, and the partition as it is now (None: there is no such partition)."""

    error: ErrorInfo
    partition: PartitionInfo | None


class IsrAltered(Message, frozen=True, tag=128):
    """Results in the order of the proposals, or of the replicas."""

    results: Annotated[list[IsrResult], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = []


ReplicaRequest: TypeAlias = ReplicaFetch | ReplicaAck
ReplicaReply: TypeAlias = ReplicaFetched | IsrAltered
