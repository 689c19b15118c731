"""What the node's threads hand to each other. Values only."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import msgspec

from tailrace.protocol.cluster import TopicConfig
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import ProduceResult, Reply
from tailrace.transport.server import Buffer

from .leaders import Led
from .replication.copying import CopyStep
from .storage.log_plan import Append, Appended
from .storage.partition_log import PartitionKey, PartitionLog

# ------------------------------------------------------------------ to the writer


class PendingProduce(msgspec.Struct, eq=False):
    """A produce request whose batches wait for the writer.

    `results` has a place for each entry of the request; `places[i]` is that of `appends[i]`, the
    others are decided already. `leader_epochs[i]` is the epoch in which `appends[i]` was accepted.
    """

    peer: bytes
    request_id: int
    acks: int
    results: list[ProduceResult | None]
    size: int = 0
    places: list[int] = []
    appends: list[Append] = []
    leader_epochs: list[int] = []


class PendingCopy(NamedTuple):
    """Steps on logs that are followed, in their order; `size` is the bytes of their batches."""

    steps: list[CopyStep]
    size: int


class Role(NamedTuple):
    """What a node is to a partition: its leader in this epoch or, with a `source`, a follower of it.

    `sole`: there is no other replica.
    """

    leader_epoch: int
    sole: bool
    source: int | None = None


class Prepare(NamedTuple):
    """Make the storage ready for one version of the cluster state.

    First the logs of `drop` topics go; those of `renew`, which are faulty and are to be made anew; those of
    `released` partitions, which others hold in the leader epoch given, if it is newer than all in the log.
    """

    version: int
    controller_epoch: int
    drop: list[bytes]
    roles: dict[PartitionKey, Role]
    configs: dict[bytes, TopicConfig]
    renew: Sequence[PartitionKey] = ()
    released: Mapping[PartitionKey, int] = MappingProxyType({})


class Drain(NamedTuple):
    """Finish what came before, then end."""


ToWriter: TypeAlias = PendingProduce | PendingCopy | Prepare | Drain

# ---------------------------------------------------------------- from the writer


class Committed(NamedTuple):
    """One group is on disk: what became of each produce's appends, the bytes that led partitions grew by, and
    what became of the steps on followed ones; how long the writer was at it."""

    produces: list[tuple[PendingProduce, list[Appended | TailraceError]]]
    grown: dict[PartitionKey, int]
    copies: list[tuple[CopyStep, TailraceError | None]]
    seconds: float


class Prepared(NamedTuple):
    """The storage is ready for this version. `refused` says why a partition cannot be led or followed; the
    logs of `unreleased` could not go."""

    version: int
    led: dict[PartitionKey, Led]
    followed: dict[PartitionKey, PartitionLog]
    refused: dict[PartitionKey, TailraceError]
    unreleased: Mapping[PartitionKey, int] = MappingProxyType({})


class Drained(NamedTuple):
    """The writer has ended, as asked."""


class WriterFailed(NamedTuple):
    """The writer has ended, since the storage cannot be trusted any more."""

    error: Exception


class ToSend(NamedTuple):
    """A reply that goes over a socket, which only the network thread may use."""

    peer: bytes
    reply: Reply
    frames: Sequence[Buffer]


# ---------------------------------------------------------------- from the reader


class ReadDone(NamedTuple):
    """A reply that needed the disk."""

    peer: bytes
    reply: Reply
    frames: Sequence[Buffer]


Letter: TypeAlias = Committed | Prepared | Drained | WriterFailed | ToSend | ReadDone
