"""What must always hold, DESIGN section 8: looked at after every step.

`committed` is, for each partition, what has ever been below a leader's high watermark: batch by batch,
from offset 0 on. Everything that is acknowledged to all, or read, must be a part of it (1, 3), in its place
(2) and once (6); whoever leads must have all of it (1), but for what retention has deleted at its start.
Where a topic allows an unclean election and there was one, nothing is promised of what was there before,
but that those in sync end up with the same.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, NoReturn

from tailrace.coordinator.election import is_sole_replica
from tailrace.coordinator.state import State
from tailrace.node.membership import Phase
from tailrace.node.storage.schema import WINDOW_ENTRY
from tailrace.protocol.batch import BatchHeader, parse_header
from tailrace.protocol.cluster import (
    NO_LEADER,
    Change,
    NodeChanged,
    NodeInfo,
    PartitionChanged,
    PartitionInfo,
    TopicChanged,
)
from tailrace.protocol.errors import CorruptBatchError
from tailrace.protocol.messages import ACKS_ALL

from .node_process import NodeProcess
from .schedule import Schedule, Violation

Key = tuple[bytes, int]
Entry = tuple[int, int, int, int]
"""(base offset, records, token, leader epoch) of a batch."""


class Checker:
    """Is told of everything, and raises Violation."""

    def __init__(self, schedule: Schedule, cluster: State) -> None:
        self._schedule = schedule
        self.cluster = cluster
        self.nodes: dict[int, NodeProcess] = {}
        self.committed: dict[Key, list[Entry]] = {}
        self.ends: dict[Key, int] = {}
        self.places: dict[Key, dict[int, int]] = {}
        """token -> base offset, of what is committed."""
        self.epochs: dict[tuple[Key, int], int] = {}
        """(partition, token) -> the leader epoch that it was stored in."""
        self.leaders: dict[tuple[Key, int], int] = {}
        self.elected: dict[tuple[Key, int], int] = {}
        self.loose: set[Key] = set()
        """An unclean election has made what was there void."""
        self.starts: dict[Key, int] = {}
        """The highest log start anywhere: what retention may have deleted lies below it."""
        self._dead: set[int] = set()
        """Nodes that the coordinator has declared dead, and that have not registered since."""
        self._led_since: dict[Key, tuple[int, float]] = {}
        """Who leads each partition by what the coordinator has decided, and since when."""
        self._returned = NO_LEADER
        self._log_ends: dict[tuple[int, Key], int] = {}
        self.tokens = 0
        self.acks = 0
        self.reads = 0
        self.elections = 0
        self._told: dict[tuple[Any, Key], int] = {}

    def fail(self, invariant: int | str, text: str) -> NoReturn:
        """`invariant`: of DESIGN section 8, or a rule of RELIABILITY."""
        self._schedule.note(f"VIOLATION of invariant {invariant}: {text}")
        raise Violation(f"invariant {invariant}: {text}")

    def new_token(self, _acks: int) -> int:
        self.tokens += 1
        return self.tokens

    def name(self, key: Key) -> str:
        return f"{self.cluster.cluster.topics[key[0]].name}-{key[1]}"

    # --------------------------------------------------------- the coordinator

    def stored(self, state: State, change: Change) -> None:
        """The coordinator has decided, durably; `state` is the one before."""
        if isinstance(change, TopicChanged):
            for index in range(len(change.topic.partitions)):
                self.committed.setdefault((change.topic.topic_id, index), [])
                self.places.setdefault((change.topic.topic_id, index), {})
                self.ends.setdefault((change.topic.topic_id, index), 0)
                self.starts.setdefault((change.topic.topic_id, index), 0)
        if isinstance(change, NodeChanged):
            # Whether it is elected as one that lacks nothing only the coordinator knows.
            self._returned = change.node.node_id if change.node.alive else NO_LEADER
            self._check_lease(state, change.node)
            if change.node.alive:
                self._registered(state, self.nodes[change.node.node_id])
        if not isinstance(change, PartitionChanged):
            return
        key, after = (change.topic_id, change.index), change.partition
        topic = state.cluster.topics[change.topic_id]
        before = topic.partitions[change.index]
        self._schedule.note(
            f"{self.name(key)}: leader {after.leader} epoch {after.leader_epoch}"
            f" isr {after.isr} elr {after.elr}"
        )
        if after.leader != before.leader:
            self._led_since[key] = (after.leader, self._schedule.now)
        if after.leader_epoch > before.leader_epoch:
            self._check_election(state, key, after)
        self._check_entry(state, key, set(after.isr).difference(before.isr))

    def _registered(self, state: State, node: NodeProcess) -> None:
        """What only this node had is gone if it comes back without its disk: that is told, no more."""
        has_lost, node.has_lost = node.has_lost, False
        for topic_id, indexes in state.index.held_by(node.node_id) if has_lost else ():
            partitions = state.cluster.topics[topic_id].partitions
            self.loose.update(
                (topic_id, index) for index in indexes if is_sole_replica(partitions[index], node.node_id)
            )

    def _check_lease(self, state: State, info: NodeInfo) -> None:
        """A node that takes itself for a member surely is not declared dead (R13)."""
        if info.alive:
            self._dead.discard(info.node_id)
            return
        now, node = self._schedule.now, self.nodes[info.node_id]
        self._schedule.note(f"{node.name} counts as dead")
        self._dead.add(info.node_id)
        if self._is_known(state, node) and node.loop._membership.phase not in {Phase.LEAVING, Phase.LEFT}:
            left = node.loop._membership.lease_until - now
            if left > 0:
                self.fail("R13", f"{node.name} is declared dead {left:.3f} s before its lease ends")

    def said_alone(self, node_id: int, key: Key, asked_at: float, what: str) -> None:
        """A leader has answered what it has asked no other replica about."""
        leader, led_since = self._led_since.get(key, (NO_LEADER, asked_at))
        if node_id in self._dead and leader not in (node_id, NO_LEADER) and led_since < asked_at:
            self.fail("R13", f"{self.name(key)}: node {node_id} tells {what}, and node {leader} led before")

    def _check_election(self, state: State, key: Key, after: PartitionInfo) -> None:
        topic = state.cluster.topics[key[0]]
        before = topic.partitions[key[1]]
        self.elections += 1
        known = self.elected.setdefault((key, after.leader_epoch), after.leader)
        if known != after.leader:
            self.fail(4, f"{self.name(key)}: nodes {known} and {after.leader} in epoch {after.leader_epoch}")
        unclean = topic.config.unclean_leader_election
        led = before.leader != NO_LEADER and state.cluster.nodes[before.leader].alive
        if led and after.leader in after.isr and (before.leader in after.isr or before.target):
            return  # handed over by who led, with this change, in which it may have come into sync
        if after.leader not in {*before.isr, *before.elr} or (unclean and after.leader == self._returned):
            if not unclean:
                self.fail(5, f"{self.name(key)}: node {after.leader} was elected, which may lack records")
            self._schedule.note(f"{self.name(key)}: unclean election")
            self.loose.add(key)

    def _check_entry(self, state: State, key: Key, node_ids: Iterable[int]) -> None:
        """Who comes into sync has what is committed, if it is the process that the coordinator knows."""
        for node in (self.nodes[node_id] for node_id in node_ids):
            if not self._is_known(state, node) or key in self.loose:
                continue
            if (node.end_of(key) or 0) < self.ends[key]:
                self.fail(
                    1,
                    f"{self.name(key)}: {node.name} is in sync from now on and has {node.end_of(key)},"
                    f" committed is {self.ends[key]}",
                )

    @staticmethod
    def _is_known(state: State, node: NodeProcess) -> bool:
        """Does the coordinator speak of this very process?"""
        known = state.cluster.nodes.get(node.node_id)
        return node.alive and known is not None and node.loop._membership.node_epoch == known.node_epoch

    # --------------------------------------------------------------- the nodes

    def stepped(self, node: NodeProcess) -> None:
        """After each step of a node: what it leads, and what it shows."""
        if not node.alive:
            return
        for key, log in node.storage.logs.items():
            if log.log_start_offset > self.starts[key]:
                self._check_start(node, key, log.log_start_offset)
            if log.log_end_offset < self._log_ends.get((node.node_id, key), 0):
                self._check_rolled_back(node, key, log)
            self._log_ends[node.node_id, key] = log.log_end_offset
            self._commits_alone(node, key, log)
        for key, (log, epoch) in node.loop._broker.leaders._led.items():
            if key in self.loose or log.leader_epoch != epoch:
                continue
            if self.leaders.get((key, epoch)) != node.node_id:
                self._leads(node, key, log, epoch)
            if log.high_watermark > self.ends[key]:
                self._advanced(node, key, log)
            if log.high_watermark > log.log_end_offset:
                self.fail(3, f"{self.name(key)}: the high watermark of {node.name} is above the log's end")

    def _commits_alone(self, node: NodeProcess, key: Key, log: Any) -> None:
        """The only replica also commits what it took before it stopped to lead, as between two epochs."""
        topic = self.cluster.cluster.topics.get(key[0])
        only = topic is not None and topic.partitions[key[1]].replicas == (node.node_id,)
        if only and log.sole_replica and log.high_watermark > self.ends[key] and key not in self.loose:
            self._advanced(node, key, log)

    def _check_start(self, node: NodeProcess, key: Key, start: int) -> None:
        """Records go at a log's start only where they may, and only once they were committed."""
        self.starts[key] = start
        if key in self.loose:
            return
        if start > self.ends[key]:
            self.fail(1, f"{self.name(key)}: {node.name} begins at {start}, committed is {self.ends[key]}")
        if self.cluster.cluster.topics[key[0]].config.retention_bytes < 0:
            self.fail(2, f"{self.name(key)}: {node.name} begins at {start}, and nothing is to be deleted")

    def _check_rolled_back(self, node: NodeProcess, key: Key, log: Any) -> None:
        """A log was cut: nothing that was cut off is taken for a duplicate when it is sent again."""
        for (partition_id, producer_id), row in node.storage._producers._cache.items():
            last = list(WINDOW_ENTRY.iter_unpack(row.window))[-1]
            if partition_id == log.partition_id and last[2] >= log.log_end_offset:
                self.fail(
                    6,
                    f"{self.name(key)}: {node.name} was cut to {log.log_end_offset}, and takes what producer"
                    f" {producer_id} had at {last[2]} for stored",
                )

    def _leads(self, node: NodeProcess, key: Key, log: Any, epoch: int) -> None:
        known = self.leaders.setdefault((key, epoch), node.node_id)
        self._schedule.note(f"{self.name(key)}: {node.name} leads in epoch {epoch} from {log.log_end_offset}")
        if known != node.node_id:
            self.fail(4, f"{self.name(key)}: nodes {known} and {node.node_id} lead in epoch {epoch}")
        info = self.cluster.cluster.topics[key[0]].partitions[key[1]]
        if info.leader_epoch == epoch:
            self.check_has_committed(node, key, "leads")

    def check_has_committed(self, node: NodeProcess, key: Key, what: str) -> None:
        """Everything that was ever committed is in this node's log, from its start on."""
        log = node.storage.logs.get(key)
        if log is None:
            if self.ends[key] > 0:
                self.fail(1, f"{self.name(key)}: {node.name} {what} and has no log of it")
            return
        has = self.batches(node, log, log.log_start_offset, self.ends[key])
        committed = self.committed[key]
        wanted = committed[bisect_left(committed, (log.log_start_offset,)) :]
        if has != wanted:
            first = next((i for i, (a, b) in enumerate(zip(has, wanted, strict=False)) if a != b), len(has))
            self.fail(
                1,
                f"{self.name(key)}: {node.name} {what} and lacks committed batch {wanted[first : first + 1]},"
                f" has {has[first : first + 1]} there; committed up to {self.ends[key]}",
            )

    def _advanced(self, node: NodeProcess, key: Key, log: Any) -> None:
        """A high watermark is where none was before: what lies below it is committed from now on."""
        end = self.ends[key]
        self._check_in_sync_have(node, key, log)
        for base, count, token, epoch in self.batches(node, log, end, log.high_watermark):
            if base != end:
                self.fail(2, f"{self.name(key)}: after offset {end} comes {base}")
            if token in self.places[key]:
                self.fail(
                    6, f"{self.name(key)}: batch {token} is at {self.places[key][token]} and again at {base}"
                )
            self.places[key][token] = base
            self.epochs[key, token] = epoch
            self.committed[key].append((base, count, token, epoch))
            end = base + count
        self.ends[key] = end

    def _check_in_sync_have(self, node: NodeProcess, key: Key, log: Any) -> None:
        info = self.cluster.cluster.topics[key[0]].partitions[key[1]]
        if info.leader != node.node_id or info.leader_epoch != log.leader_epoch:
            return
        for other in info.isr:
            replica = self.nodes[other]
            if replica.alive and not self._is_known(self.cluster, replica):
                continue  # it may have come back with less, and has not registered yet
            end = replica.end_of(key)
            if end is not None and end < log.high_watermark:
                self.fail(
                    1,
                    f"{self.name(key)}: {log.high_watermark} is committed by {node.name}, and node {other},"
                    f" which is in sync, has {end}",
                )

    def batches(self, node: NodeProcess, log: Any, start: int, end: int) -> list[Entry]:
        """What a node has of a log. All of it can be read: what spoils a log lies beyond its end."""
        found: list[Entry] = []
        while start < min(end, log.log_end_offset):
            try:
                read = node.storage.read(log, start, 1 << 20, min(end, log.log_end_offset), _keeper(found))
            except CorruptBatchError as error:
                self.fail(1, f"{node.name} cannot read what it has: {error}")
            if not read:
                break
            start = found[-1][0] + found[-1][1]
        return found

    # -------------------------------------------------------------- the clients

    def acked(self, producer: Any, key: Key, token: int, epoch: int, offset: int) -> None:
        """`epoch`: the leader epoch that the producer believed in."""
        self.acks += 1
        if producer.acks != ACKS_ALL or key in self.loose:
            return
        if self.places[key].get(token) != offset:
            self.fail(
                1,
                f"{self.name(key)}: batch {token} is acknowledged to all at {offset}; it is committed at"
                f" {self.places[key].get(token)}, of {self.ends[key]}",
            )
        if self.epochs[key, token] > epoch:
            stored = self.epochs[key, token]
            self.fail(4, f"{self.name(key)}: batch {token}, sent in epoch {epoch}, was stored in {stored}")

    def lost_track(self, producer: Any, key: Key, token: int, code: Any) -> None:
        """A producer's next batch does not follow what the leader has of it."""
        self._schedule.note(f"{self.name(key)}: {producer.name} is told {code} for {token}")
        if producer.acks == ACKS_ALL and key not in self.loose:
            self.fail(
                6, f"{self.name(key)}: all before batch {token} was acknowledged to all, and it gets {code!r}"
            )

    def read(self, consumer: Any, key: Key, header: BatchHeader, position: int, end: int) -> None:
        self.reads += 1
        token = header.base_timestamp - 1_600_000_000_000
        if key in self.loose:
            return
        if header.base_offset != position and position >= self.starts[key]:
            self.fail(2, f"{self.name(key)}: {consumer.name} reads {header.base_offset} at {position}")
        if header.last_offset >= end >= 0:
            self.fail(3, f"{self.name(key)}: {consumer.name} reads {header.last_offset}, committed is {end}")
        if self.places[key].get(token) != header.base_offset:
            self.fail(
                2,
                f"{self.name(key)}: {consumer.name} reads batch {token} at {position}; it is committed at"
                f" {self.places[key].get(token)}, of {self.ends[key]}",
            )

    def floor(self, consumer: Any, key: Key) -> int:
        """What it was told so far; what it is told in answer to a request that it sends now is no less."""
        return self._told.get((consumer, key), 0)

    def told_end(self, consumer: Any, key: Key, end: int, floor: int) -> None:
        """A reader is told a high watermark."""
        if key in self.loose:
            return
        if end < floor:
            self.fail(3, f"{self.name(key)}: {consumer.name} was told that {floor} is committed, now {end}")
        if end > self.ends[key]:
            self.fail(3, f"{self.name(key)}: {consumer.name} is told {end}, committed is {self.ends[key]}")
        self._told[consumer, key] = max(end, self.floor(consumer, key))

    def out_of_range(self, consumer: Any, key: Key, position: int) -> None:
        if key not in self.loose and position >= self.starts[key]:
            self.fail(
                3, f"{self.name(key)}: {consumer.name} has read up to {position}, which is out of range"
            )

    # ------------------------------------------------------------------ the end

    def check_end(self, nodes: Iterable[NodeProcess]) -> None:
        """All is healed: who leads has everything, and so have those in sync; all have the same.

        Who is no replica has no log, unless that may be newer than what the coordinator knows.
        """
        for key in self.committed:
            info = self.cluster.cluster.topics[key[0]].partitions[key[1]]
            for node in nodes:
                log = node.storage.logs.get(key) if self._is_known(self.cluster, node) else None
                if (
                    log is not None
                    and node.node_id not in info.replicas
                    and log.leader_epoch < info.leader_epoch
                ):
                    self.fail("R6", f"{self.name(key)}: {node.name} is no replica, and keeps its log")
            in_sync = [n for n in nodes if n.node_id in info.isr and self._is_known(self.cluster, n)]
            if key not in self.loose:
                for node in in_sync:
                    self.check_has_committed(node, key, "is in sync")
            in_sync = [node for node in in_sync if key in node.storage.logs]
            logs = [node.storage.logs[key] for node in in_sync]
            start = max((log.log_start_offset for log in logs), default=0)
            end = min((log.high_watermark for log in logs), default=0)
            contents = [self.batches(n, log, start, end) for n, log in zip(in_sync, logs, strict=True)]
            if any(content != contents[0] for content in contents):
                self.fail(2, f"{self.name(key)}: those in sync differ: {contents}")


def _keeper(found: list[Entry]) -> Any:
    def keep(batch: memoryview) -> int:
        header = parse_header(batch)
        token = header.base_timestamp - 1_600_000_000_000
        found.append((header.base_offset, header.record_count, token, header.leader_epoch))
        return len(batch)

    return keep
