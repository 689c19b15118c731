"""The guards of RELIABILITY R1 to R9, R13, R14, each removable by name: what production is without it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from msgspec.structs import replace as replace_fields

from tailrace import durable
from tailrace.coordinator import election
from tailrace.coordinator.handlers import alter_isr, leave_cluster, register_node
from tailrace.coordinator.node_connections import NodeConnections
from tailrace.coordinator.service import Service
from tailrace.node import writer as writer_module
from tailrace.node.handlers import fetch, produce, replica_fetch
from tailrace.node.leaders import Leaders
from tailrace.node.replication import replication
from tailrace.node.replication.copying import Copier
from tailrace.node.replication.leading import LeadReplica
from tailrace.node.replication.replication import Replication
from tailrace.node.storage import truncation
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import NotLeaderError
from tailrace.protocol.messages import OK, ProduceResult

from .sockets import Weather

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Guard:
    """`rule`: of RELIABILITY. `patches` take it out."""

    rule: str
    says: str
    patches: Callable[[], list[Patch]]
    focus: dict[str, Any]
    """The faults that bring it out soon, in place of those that a seed draws, and other parts of the plan."""


GUARDS: Final[dict[str, Guard]] = {}


def _guard(
    rule: str, says: str, **focus: Any
) -> Callable[[Callable[[], list[Patch]]], Callable[[], list[Patch]]]:
    def add(patches: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
        GUARDS[patches.__name__] = Guard(rule, says, patches, focus)
        return patches

    return add


@contextmanager
def without(name: str) -> Iterator[None]:
    """Production without one of its guards."""
    with ExitStack() as stack:
        for target, attribute, substitute in GUARDS[name].patches():
            stack.enter_context(patch.object(target, attribute, substitute))
        yield


@_guard(
    "R1",
    "the coordinator publishes and answers only what is durable",
    coordinator_crash=2.0,
    node_crash=0.7,
    cut=1.0,
)
def durable_before_published() -> list[Patch]:
    finish = Service._finish

    def publish_first(self: Any, outcomes: Any) -> None:
        outcomes = list(outcomes)
        updates = [outcome.update for outcome in outcomes if outcome.update is not None]
        with patch.object(self._store, "commit", lambda *_: None):
            finish(self, outcomes)
        private = [change for outcome in outcomes for change in outcome.private]
        if updates or private:
            self._store.commit(updates, private)

    return [(Service, "_finish", publish_first)]


@_guard("R2", "a follower says that it has what is on its disk, not what is on its way there")
def durable_fetch_offset() -> list[Patch]:
    depart = Copier._depart

    def say_all_that_came(self: Any, leader: int, partitions: Any) -> Any:
        sent = depart(self, leader, partitions)
        return sent._replace(
            entries=[replace_fields(entry, offset=entry.fetch_offset) for entry in sent.entries]
        )

    return [(Copier, "_depart", say_all_that_came)]


@_guard("R3", "the high watermark waits for the proposed members too (KIP-497)")
def maximal_isr() -> list[Patch]:
    original = LeadReplica.high_watermark

    def only_confirmed(self: Any, current: int, end_offset: int) -> int:
        proposed, self.proposed = self.proposed, None
        try:
            return original(self, current, end_offset)
        finally:
            self.proposed = proposed

    return [(LeadReplica, "high_watermark", only_confirmed)]


@_guard("R3", "the high watermark waits for every member that is in sync")
def all_in_sync() -> list[Patch]:
    return [(LeadReplica, "high_watermark", lambda self, current, end_offset: max(current, end_offset))]


@_guard(
    "R3",
    "a leader that is told of its successor commits nothing more",
    topics=((2, 1, False, -1),) * 3,
    node_crash=0.7,
    operator_pause_s=0.15,
    weather=Weather(latency_s=0.02, publishes_late=0.9),
)
def replaced_leader_stops() -> list[Patch]:
    original = LeadReplica.answered

    def goes_on(self: Any, info: Any) -> None:
        original(self, None if info is not None and info.leader_epoch > self.leader_epoch else info)

    return [(LeadReplica, "answered", goes_on)]


@_guard("R3", "nothing is committed with fewer than min_insync_replicas")
def min_insync() -> list[Patch]:
    return [(LeadReplica, "enough", property(lambda _: True))]


@_guard("R3", "acks=all waits for the high watermark")
def ack_after_commit() -> list[Patch]:
    def at_once(broker: Any, _produce: Any, log: Any, outcome: Any, **_: Any) -> Any:
        return ProduceResult(OK, outcome.base_offset, log.log_start_offset)

    return [(produce, "_replicated", at_once)]


@_guard("R3", "acks=all waits for the high watermark also for a duplicate")
def duplicate_waits() -> list[Patch]:
    original = produce._replicated

    def duplicates_at_once(broker: Any, request: Any, log: Any, outcome: Any, **more: Any) -> Any:
        if outcome.duplicate:
            return ProduceResult(OK, outcome.base_offset, log.log_start_offset)
        return original(broker, request, log, outcome, **more)

    return [(produce, "_replicated", duplicates_at_once)]


@_guard(
    "R4",
    "a follower is in sync only with all that is committed and all before the leader's epoch",
    cut=2.0,
    node_crash=1.0,
)
def caught_up_to_enter() -> list[Patch]:
    def anybody(self: Any, isr: Any, high_watermark: int, node_epochs: Any, _: float) -> list[int]:
        return [
            n
            for n, f in self._followers.items()
            if n not in isr and n in self._info.replicas and node_epochs.get(n) == f.node_epoch
        ]

    return [(LeadReplica, "_ready", anybody)]


@_guard(
    "R4",
    "who has left the replicas, and its log with that, counts for nothing when it comes back",
    operator_pause_s=0.1,
)
def epoch_without_who_left() -> list[Patch]:
    def elected(before: Any, leader: int, _stay: Any) -> bool:
        return leader not in (before.leader, NO_LEADER)

    def release(self: Any, released: Any) -> None:
        self._remove([key for key in released if key in self._storage.logs])

    return [(election, "_begun", elected), (writer_module.Writer, "_release", release)]


@_guard(
    "R4",
    "a follower is in sync only in the node epoch in which it was seen (KIP-841, KIP-903)",
    node_replaced=1.5,
)
def node_epoch_to_enter() -> list[Patch]:
    ready = LeadReplica._ready

    def whatever_epoch(self: Any, isr: Any, high_watermark: int, _: Any, now: float) -> list[int]:
        return ready(self, isr, high_watermark, {n: f.node_epoch for n, f in self._followers.items()}, now)

    return [
        (LeadReplica, "_ready", whatever_epoch),
        (alter_isr, "_check_entry", lambda *_: None),
    ]


@_guard(
    "R5",
    "a follower truncates to where its epochs agree with its leader's (KIP-101, KIP-279)",
    cut=2.0,
    node_crash=0.5,
)
def truncate_by_epochs() -> list[Patch]:
    look = replica_fetch._look

    def no_divergence(broker: Any, request: Any, entry: Any, now: float) -> Any:
        return look(broker, request, replace_fields(entry, last_epoch=-1), now)

    return [(replica_fetch, "_look", no_divergence)]


@_guard("R5", "producers' sequences are rolled back with the log", node_crash=0.5, node_pause=1.0)
def sequences_rolled_back() -> list[Patch]:
    return [(truncation, "_roll_back", lambda *_: ({}, []))]


@_guard("R6", "only a member of ISR or ELR is elected", node_crash=2.0)
def elect_in_sync() -> list[Patch]:
    original = election.settle

    def anybody(partition: Any, rules: Any) -> Any:
        return original(partition, rules._replace(unclean=True))

    return [
        (election, "settle", anybody),
        (leave_cluster, "settle", anybody),
    ]


@_guard("R6", "the ELR is empty while enough replicas are in sync", node_crash=2.0, cut=1.0)
def elr_clears() -> list[Patch]:
    original = election._with_isr

    def keep(partition: Any, isr: Any, rules: Any) -> Any:
        return original(partition, isr, rules._replace(min_insync=99))

    def enough(replica: Any) -> bool:
        """A leader that is told of an ELR commits nothing, whatever else it knows."""
        return len(replica._info.isr) >= replica._min_insync

    return [(election, "_with_isr", keep), (LeadReplica, "enough", property(enough))]


@_guard(
    "R7",
    "a node whose disk was replaced, or that may lack what it acknowledged, is not in sync",
    node_wipe=2.0,
    node_crash=0.7,
    coordinator_crash=0.7,
)
def intact_to_stay() -> list[Patch]:
    original = election.return_node

    def always_intact(partition: Any, node_id: int, rules: Any, **_: bool) -> Any:
        return original(partition, node_id, rules, intact=True)

    return [(register_node, "return_node", always_intact)]


@_guard("R7", "a node that was killed in relaxed mode says so", all_crash=1.5, flush=("relaxed",) * 3)
def says_not_durable() -> list[Patch]:
    decide = register_node.decide

    def durable(state: Any, request: Any, timeout_ms: int) -> Any:
        return decide(state, replace_fields(request, durable=True), timeout_ms)

    return [(register_node, "decide", durable)]


@_guard("R7", "a node with an older copy of its disk is not in sync", node_restore=2.0, node_crash=1.5)
def older_copy_to_stay() -> list[Patch]:
    decide = register_node.decide

    def forgetful(state: Any, request: Any, timeout_ms: int) -> Any:
        return decide(state, replace_fields(request, openings=[]), timeout_ms)

    return [(register_node, "decide", forgetful)]


@_guard("R7", "a faulty log is out of sync before it is made anew", log_broken=2.0)
def out_before_renewed() -> list[Patch]:
    def at_once(faulty: Any, *_: Any, now: float, **__: Any) -> None:
        for key in faulty.ask(now):
            faulty.answered(key, out_from=-1, ask_at=now)

    return [(replication, "leave_isr", at_once)]


@_guard("R8", "a new leader says what is committed only once it knows", node_crash=0.7)
def settled_before_answering() -> list[Patch]:
    return [
        (Replication, "refuse_end", lambda *_: None),
    ]


@_guard("R8", "a new leader's fetch replies leave out a high watermark that may be behind", node_crash=1.5)
def fetch_tells_settled() -> list[Patch]:
    original = fetch.read_all

    def tell_anything(storage: Any, readings: Any, reply: Any) -> Any:
        told = {(r.entry.topic_id, r.entry.partition): r.high_watermark for r in readings}
        return [
            replace_fields(result, high_watermark=told[result.topic_id, result.partition])
            if result.error.code == 0
            else result
            for result in original(storage, readings, reply)
        ]

    return [(fetch, "read_all", tell_anything)]


@_guard("R9", "a request in another leader epoch is refused", node_pause=2.0, node_crash=1.5)
def leader_epoch_matches() -> list[Patch]:
    def find(self: Any, topic_id: bytes, partition: int, _: int) -> Any:
        led = self._led.get((topic_id, partition))
        if led is None:
            raise NotLeaderError("not here")
        return led.log

    return [(Leaders, "find", find), (writer_module, "_refusal", lambda *_: None)]


@_guard(
    "R13", "past its lease a leader answers nothing that a successor may answer otherwise", node_exile=1.0
)
def lease_to_speak_alone() -> list[Patch]:
    return [(Replication, "_refuse_past_lease", lambda *_: None)]


@_guard(
    "R13",
    "a node whose connection has ended is dead before its lease is over only if its process is gone",
    reset=2.0,
    node_pause=1.0,
)
def refused_to_be_dead() -> list[Patch]:
    return [(NodeConnections, "dead", lambda self: sorted(self.missing))]


@_guard("R14", "one coordinator has the store", coordinator_twice=2.0, node_crash=1.0)
def one_coordinator() -> list[Patch]:
    return [(durable.fcntl, "flock", lambda *_: None)]
