"""One simulated cluster: three nodes, a coordinator, producers and consumers, and what befalls them."""

import gc
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from tailrace.coordinator import preferred
from tailrace.node import following, membership
from tailrace.node.replication import copying, leading, pace, replication
from tailrace.protocol.cluster import PartitionInfo, TopicChanged, TopicConfig, TopicInfo
from tailrace.protocol.messages import Update

from .checker import Checker
from .clients import Consumer, Producer
from .coordinator_process import CoordinatorProcess, EventStore
from .faults import Chaos, Faults
from .node_process import NodeProcess
from .operator import Operator
from .schedule import Schedule, Violation
from .sockets import Network, Weather

NODES = (1, 2, 3)
SETTLING_S_MAX = 3.0
"""In virtual time: many writes of the slowest disk."""
PATIENCE = (
    (leading, "LAG_S_MAX", 0.8),
    (replication, "LOOK_S", 0.2),
    (following, "REOPEN_S", 0.2),
    (replication, "REQUEST_TIMEOUT_S", 0.8),
    (membership, "REPLY_S_MAX", 0.8),
    (preferred, "QUIET_S", 1.0),
    (copying, "LARGE_COPY_BYTES_MIN", 112),
    (copying, "SMALL_COPY_BYTES_MAX", 111),
    (pace, "SMALL_COPY_BYTES_MAX", 111),
    (pace, "COPY_COMMIT_BYTES_MIN", 200),
    (pace, "REPLICA_FETCH_BYTES_MAX", 400),
)
"""Production's waits, shortened, so that more happens in a run; about every second answer counts as large,
and many of these are written in pieces."""


@dataclass(frozen=True)
class Plan:
    """All that a seed decides beforehand."""

    faults: Faults
    weather: Weather
    topics: tuple[tuple[int, int, bool, int], ...]
    """(replicas, min in sync, unclean elections, retention in bytes)."""
    flush: tuple[str, str, str]
    slow_disk: float
    operator_pause_s: float
    """Between two wishes of the operator, on average; 0: there is none."""
    chaos_s: float = 3.0

    @property
    def keeps_disks(self) -> bool:
        """Does a node always come back with what it had?"""
        return set(self.flush) == {"commit"} and not self.faults.loses_disks


def draw(random: Random) -> Plan:
    """What a seed is about."""
    faults = Faults.draw(random)
    weather = Weather(
        drop=random.choice((0.0, 0.0, 0.002, 0.02)),
        duplicate=random.choice((0.0, 0.0, 0.05)),
        reorder=random.choice((0.0, 0.0, 0.05, 0.2)),
        latency_s=random.choice((0.001, 0.005, 0.02)),
        late=random.choice((0.0, 0.0, 0.01)),
        publishes_late=random.choice((0.0, 0.0, 0.1)),
    )
    relaxed = random.choice(("commit", "commit", "relaxed"))
    retention = random.choice((-1, -1, 1_500))
    topics = [(3, 2, False, -1), (3, random.choice((1, 2)), random.random() < 0.15, retention)]
    if random.random() < 0.5:
        topics.append((2, 1, False, -1))
    return Plan(
        faults,
        weather,
        tuple(topics),
        (relaxed, random.choice((relaxed, "commit")), "commit"),
        random.choice((0.0, 0.02, 0.2)),
        random.choice((0.0, 0.0, 0.4)),
    )


class World:
    """Use `run`; then the trace is in `schedule`."""

    def __init__(self, seed: int, folder: Path, focus: Mapping[str, Any]) -> None:
        self.schedule = schedule = Schedule(seed)
        drawn = draw(schedule.random)
        rates = {name: rate for name, rate in focus.items() if hasattr(drawn.faults, name)}
        rest = {name: value for name, value in focus.items() if name not in rates}
        self.plan = replace(drawn, faults=Faults(**rates) if rates else drawn.faults, **rest)
        self.network = Network(schedule, replace(self.plan.weather))
        store = EventStore(folder, lambda state, change: self.checker.stored(state, change))
        self.coordinator = CoordinatorProcess(schedule, self.network, store)
        self.checker = Checker(schedule, self.coordinator.store.state)
        self.nodes = [
            NodeProcess(
                node_id,
                schedule,
                self.network,
                folder / str(node_id),
                flush=flush,
                slow=self.plan.slow_disk,
                stepped=self.checker.stepped,
                keeps_copies=self.plan.faults.node_restore > 0,
            )
            for node_id, flush in zip(NODES, self.plan.flush, strict=True)
        ]
        self.checker.nodes = {node.node_id: node for node in self.nodes}
        keys = self._make_topics()
        client = (schedule, self.network, self.checker)
        self.producers = [
            Producer("producer all", *client, keys=keys, acks=-1, pause_s=0.09),
            Producer("producer all 2", *client, keys=keys[:1], acks=-1, pause_s=0.2),
            Producer("producer one", *client, keys=keys[-1:], acks=1, pause_s=0.2),
        ]
        self.consumers = [
            Consumer("consumer", *client, keys=keys),
            Consumer("consumer from the start", *client, keys=keys, again_s=0.05),
        ]
        self.operators = []
        if pause_s := self.plan.operator_pause_s:
            sizes = (1, 2, 3) if self.plan.keeps_disks else (2, 3)  # a sole replica may lose its disk
            self.operators.append(Operator("operator", *client, node_ids=NODES, sizes=sizes, pause_s=pause_s))
        self.clients = (*self.producers, *self.consumers, *self.operators)
        self.chaos = Chaos(schedule, self.network, self.coordinator, self.nodes, self.clients)

    def _make_topics(self) -> list[tuple[bytes, int]]:
        """As if they had been created long ago."""
        changes = []
        for number, (replicas, min_insync, unclean, retention_bytes) in enumerate(self.plan.topics, 1):
            config = TopicConfig(
                retention_bytes=retention_bytes,
                min_insync_replicas=min_insync,
                unclean_leader_election=unclean,
            )
            nodes = tuple(NODES[(number + i) % 3] for i in range(replicas))
            info = PartitionInfo(nodes, -1, 0, 0, nodes)
            changes.append(TopicChanged(TopicInfo(bytes([number]) * 16, f"t{number}", config, (info,))))
        self.coordinator.store.commit([Update(0, 1, changes)], [])
        return [(bytes([number]) * 16, 0) for number in range(1, len(changes) + 1)]

    # --------------------------------------------------------------------- run

    def run(self) -> None:
        """Raises Violation."""
        schedule = self.schedule
        self.coordinator.start()
        for node in self.nodes:
            node.start()
        for client in self.clients:
            client.begin()
        schedule.run_until(schedule.now + 0.5)
        self.chaos.begin(self.plan.faults)
        schedule.run_until(schedule.now + self.plan.chaos_s)
        self.chaos.heal()
        for operator in self.operators:
            operator.quiet = True
        schedule.run_until(schedule.now + 1.0)
        for producer in self.producers:
            producer.quiet = True
        schedule.run_until(schedule.now + 0.5)
        self._settle()
        self.checker.check_end(self.nodes)

    def _settle(self) -> None:
        """Nodes with slow disks may be behind with what the last state wants, such as logs that are to go."""
        end = self.schedule.now + SETTLING_S_MAX
        while self.schedule.now < end and not all(node.settled(self.checker.cluster) for node in self.nodes):
            self.schedule.run_until(self.schedule.now + 0.05)

    def close(self) -> None:
        for process in (*self.nodes, *self.chaos.coordinators):
            process.crash()


@contextmanager
def shortened() -> Iterator[None]:
    """With shorter waits than production's."""
    with ExitStack() as stack:
        for module, name, value in PATIENCE:
            stack.enter_context(patch.object(module, name, value))
        yield


def run(seed: int, focus: Mapping[str, Any] | None = None) -> World:
    """Raises Violation, with the seed and the trace in its notes. `focus`: in place of what is drawn."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="tailrace-sim-", dir=shm if shm.is_dir() else None))
    with shortened():
        world = World(seed, folder, focus or {})
        try:
            gc.disable()
            world.run()
        except Violation as violation:
            violation.add_note(f"seed {seed}: replay it with `python -m tests.simulation {seed}`")
            violation.add_note("\n".join([*world.schedule.trace][-60:]))
            raise
        finally:
            gc.enable()
            world.close()
            shutil.rmtree(folder, ignore_errors=True)
    return world
