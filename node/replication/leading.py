"""What the leader of a partition knows of its replicas, and what follows from it. Pure.

The rules are RELIABILITY R2 to R4, after KIP-497 and KIP-966. A follower's offset is what it has on disk. The
high watermark is what every member of the *maximal* in-sync set has: the one that the coordinator has
confirmed, and the one that was proposed to it, since either may be what the next leader is elected from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.limits import REPLICA_LAG_MS_MAX

LAG_S_MAX = REPLICA_LAG_MS_MAX / 1000


@dataclass(slots=True)
class Follower:
    """A replica that has fetched in this leader epoch.

    `caught_up_at`: when it last had all that the leader had. `leader_end` is what the leader had at its last
    fetch, so that one that is always a little behind counts as caught up as of then.
    """

    node_epoch: int
    end_offset: int
    caught_up_at: float
    fetched_at: float
    leader_end: int


class LeadReplica:
    """One partition in one leader epoch, which began at `start`. Times in seconds, monotonic."""

    def __init__(self, node_id: int, info: PartitionInfo, min_insync: int, *, start: int, now: float) -> None:
        self.leader_epoch = info.leader_epoch
        self.start = start
        self.proposed: frozenset[int] | None = None
        """Told to the coordinator, with an outcome that is not known yet."""
        self.seen: Mapping[int, int] = {}
        """The node epochs in which its members were seen when it was made."""
        self._asked = False
        """Is the proposal on its way?"""
        self._replaced = False
        """Has the coordinator told of a later epoch? Nothing can be committed in this one any more."""
        self._node_id = node_id
        self._since = now
        self._followers: dict[int, Follower] = {}
        self._info = info
        self._min_insync = min_insync

    @property
    def partition_epoch(self) -> int:
        """The one that the next proposal must name."""
        return self._info.partition_epoch

    @property
    def enough(self) -> bool:
        """Are as many in sync as acks=all asks for?

        An ELR says that they are not, also while the topic's new `min_insync_replicas` has not been heard of,
        which comes another way: who is in it may be elected, and would lack what is committed now.
        """
        return len(self._info.isr) >= self._min_insync and not self._info.elr

    @property
    def accompanied(self) -> bool:
        """Is another one in sync?"""
        return len(self._info.isr) > 1

    def follow(self, info: PartitionInfo, min_insync: int) -> None:
        """The partition as the coordinator says it is, in the same leader epoch."""
        self._min_insync = min_insync
        if info.partition_epoch >= self._info.partition_epoch:
            if info.partition_epoch > self._info.partition_epoch:
                self.proposed = None
            self._info = info

    def is_replica(self, node_id: int) -> bool:
        """May this node fetch as a follower?"""
        return node_id in self._info.replicas and node_id != self._node_id

    def fetched(self, node_id: int, node_epoch: int, offset: int, *, end_offset: int, now: float) -> None:
        """A follower has everything below `offset` on disk, of the leader's `end_offset`.

        What an older process of the same node says is not heard (KIP-903).
        """
        before = self._followers.get(node_id)
        if before is None or before.node_epoch < node_epoch:
            caught_up_at = now if offset >= end_offset else self._since
            self._followers[node_id] = Follower(node_epoch, offset, caught_up_at, now, end_offset)
        elif before.node_epoch == node_epoch:
            if offset >= end_offset:
                before.caught_up_at = now
            elif offset >= before.leader_end:
                before.caught_up_at = max(before.caught_up_at, before.fetched_at)
            before.end_offset, before.fetched_at, before.leader_end = offset, now, end_offset

    def acknowledged(
        self, node_id: int, node_epoch: int, offset: int, *, end_offset: int, now: float
    ) -> bool:
        """As `fetched`, between two fetches of a follower that is known by them. False: it is nothing new."""
        known = self._followers.get(node_id)
        if known is None or known.node_epoch != node_epoch or not known.end_offset < offset <= end_offset:
            return False
        self.fetched(node_id, node_epoch, offset, end_offset=end_offset, now=now)
        return True

    def high_watermark(self, current: int, end_offset: int) -> int:
        """What is committed by now; never below `current`. `end_offset` is what the leader has on disk."""
        if self._replaced or not self.enough:
            return current
        ends = [end_offset]
        for node_id in (self.proposed or frozenset()).union(self._info.isr):
            if node_id != self._node_id:
                follower = self._followers.get(node_id)
                ends.append(current if follower is None else follower.end_offset)
        return max(current, min(ends))

    def propose(
        self, high_watermark: int, node_epochs: Mapping[int, int], now: float
    ) -> tuple[int, ...] | None:
        """What to ask the coordinator for, if anything. `node_epochs`: of living nodes.

        One thing at a time; what was not answered is asked for again, since it may have been done. Not for
        members that have started anew since: `seen` stays, so that this is refused if it was not done.
        """
        if self._asked or self._replaced:
            return None
        wanted = self.proposed
        if wanted is None:
            isr = frozenset(self._info.isr)
            wanted = isr.difference(self._late(isr, now)).union(
                self._ready(isr, high_watermark, node_epochs, now)
            )
            if wanted == isr:
                return None
            self.seen = {n: self._followers[n].node_epoch for n in wanted if n in self._followers}
        self.proposed, self._asked = wanted, True
        return tuple(node_id for node_id in self._info.replicas if node_id in wanted)

    def answered(self, info: PartitionInfo | None) -> None:
        """The coordinator has decided on the proposal; `info` is the partition as it is now.

        It may have made the leader another one with that: who was proposed may be in sync without this one.
        """
        self.proposed, self._asked = None, False
        if info is None:
            return
        if info.leader_epoch > self.leader_epoch:
            self._replaced = True
        else:
            self.follow(info, self._min_insync)

    def unanswered(self) -> None:
        """Nobody knows what became of the proposal."""
        self._asked = False

    def _caught_up_at(self, node_id: int) -> float:
        follower = self._followers.get(node_id)
        return self._since if follower is None else follower.caught_up_at

    def _late(self, isr: frozenset[int], now: float) -> list[int]:
        return [n for n in isr if n != self._node_id and now - self._caught_up_at(n) > LAG_S_MAX]

    def _ready(
        self, isr: frozenset[int], high_watermark: int, node_epochs: Mapping[int, int], now: float
    ) -> list[int]:
        """One that would be late at once, as with a full disk, does not come in and out again for ever."""
        needed = max(high_watermark, self.start)
        return [
            node_id
            for node_id, follower in self._followers.items()
            if node_id not in isr
            and node_id in self._info.replicas
            and follower.end_offset >= needed
            and node_epochs.get(node_id) == follower.node_epoch
            and now - follower.caught_up_at <= LAG_S_MAX
        ]


def seen_members(proposers: Iterable[LeadReplica]) -> dict[int, int]:
    """The node epochs in which these have seen the members of what they propose, for one request.

    The oldest where they differ: what only a younger process has is then refused, and proposed anew.
    """
    seen: dict[int, int] = {}
    for proposer in proposers:
        for node_id, node_epoch in proposer.seen.items():
            seen[node_id] = min(node_epoch, seen.get(node_id, node_epoch))
    return seen
