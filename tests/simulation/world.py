"""One simulated cluster: three nodes, a coordinator, producers and consumers, and what befalls them."""

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from tailrace.coordinator import preferred
from tailrace.node import membership
from tailrace.node.replication import leading, replication
from tailrace.protocol.cluster import PartitionInfo, TopicChanged, TopicConfig, TopicInfo
from tailrace.protocol.messages import Update

from .checker import Checker
from .clients import Consumer, Producer
from .coordinator_process import CoordinatorProcess
from .node_process import NodeProcess
from .schedule import Schedule, Violation
from .sockets import Network, Weather

NODES = (1, 2, 3)
PATIENCE = (
    (leading, "LAG_S_MAX", 0.8),
    (replication, "LOOK_S", 0.2),
    (replication, "REQUEST_TIMEOUT_S", 0.8),
    (membership, "REPLY_S_MAX", 0.8),
    (preferred, "QUIET_S", 1.0),
)
"""Production's waits, shortened, so that more happens in a run."""


@dataclass(frozen=True)
class Faults:
    """How often each befalls the cluster, a second; drawn by the seed, most of them 0."""

    node_crash: float = 0.0
    node_power: float = 0.0
    node_wipe: float = 0.0
    node_pause: float = 0.0
    coordinator_crash: float = 0.0
    coordinator_pause: float = 0.0
    cut: float = 0.0
    cut_one_way: float = 0.0
    reset: float = 0.0
    disk_broken: float = 0.0
    disk_full: float = 0.0
    all_crash: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All that a seed decides beforehand."""

    faults: Faults
    weather: Weather
    topics: tuple[tuple[int, int, bool], ...]
    """(replicas, min in sync, unclean elections)."""
    flush: tuple[str, str, str]
    slow_disk: float
    chaos_s: float = 3.0


def draw(random: Random) -> Plan:
    """Each run has some of the faults only, and those often: so they meet."""
    rates = {field.name: random.choice((0.0, 0.0, 0.4, 1.0)) for field in fields(Faults)}
    weather = Weather(
        drop=random.choice((0.0, 0.0, 0.002, 0.02)),
        duplicate=random.choice((0.0, 0.0, 0.05)),
        reorder=random.choice((0.0, 0.0, 0.05, 0.2)),
        latency_s=random.choice((0.001, 0.005, 0.02)),
        late=random.choice((0.0, 0.0, 0.01)),
    )
    relaxed = random.choice(("commit", "commit", "relaxed"))
    topics = [(3, 2, False), (3, random.choice((1, 2)), random.random() < 0.15)]
    if random.random() < 0.5:
        topics.append((2, 1, False))
    return Plan(
        Faults(**rates),
        weather,
        tuple(topics),
        (relaxed, random.choice((relaxed, "commit")), "commit"),
        random.choice((0.0, 0.02, 0.2)),
    )


class World:
    """Use `run`; then the trace is in `schedule`."""

    def __init__(self, seed: int, folder: Path, focus: Mapping[str, Any]) -> None:
        self.schedule = schedule = Schedule(seed)
        drawn = draw(schedule.random)
        rates = {name: rate for name, rate in focus.items() if hasattr(drawn.faults, name)}
        rest = {name: value for name, value in focus.items() if name not in rates}
        self.plan = replace(drawn, faults=replace(drawn.faults, **rates), **rest)
        self.network = Network(schedule, self.plan.weather)
        self.coordinator = CoordinatorProcess(
            schedule, self.network, lambda state, change: self.checker.stored(state, change)
        )
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
            )
            for node_id, flush in zip(NODES, self.plan.flush, strict=True)
        ]
        self.checker.nodes = {node.node_id: node for node in self.nodes}
        keys = self._make_topics()
        client = (schedule, self.network, self.checker)
        self.producers = [
            Producer("producer all", *client, keys=keys, acks=-1, pause_s=0.05),
            Producer("producer all 2", *client, keys=keys[:1], acks=-1, pause_s=0.15),
            Producer("producer one", *client, keys=keys[-1:], acks=1, pause_s=0.15),
        ]
        self.consumers = [Consumer(f"consumer {i}", *client, keys=keys) for i in (1, 2)]
        self.healed = False

    def _make_topics(self) -> list[tuple[bytes, int]]:
        """As if they had been created long ago."""
        changes = []
        for number, (replicas, min_insync, unclean) in enumerate(self.plan.topics, 1):
            config = TopicConfig(min_insync_replicas=min_insync, unclean_leader_election=unclean)
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
        for client in (*self.producers, *self.consumers):
            client.begin()
        schedule.run_until(schedule.now + 0.5)
        for field in fields(Faults):
            rate = getattr(self.plan.faults, field.name)
            if rate:
                self._befall(getattr(self, f"_{field.name}"), rate)
        schedule.run_until(schedule.now + self.plan.chaos_s)
        self._heal()
        schedule.run_until(schedule.now + 1.5)
        for producer in self.producers:
            producer.quiet = True
        schedule.run_until(schedule.now + 1.0)
        self.checker.check_end(self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.crash()

    def _befall(self, strike: Callable[[], None], rate: float) -> None:
        def struck() -> None:
            if not self.healed:
                strike()
                self._befall(strike, rate)

        self.schedule.after(self.schedule.random.expovariate(rate), struck)

    def _heal(self) -> None:
        self.schedule.note("all heals")
        self.healed = True
        self.network.weather.__dict__.update(Weather().__dict__)
        self.network.cut.clear()
        self._mend_disks()
        for process in (self.coordinator, *self.nodes):
            if process.paused:
                process.resume()
        self._start_all()

    def _start_all(self) -> None:
        """Also those that end by themselves meanwhile."""
        for process in (self.coordinator, *self.nodes):
            if not process.alive:
                process.start()
        self.schedule.after(0.5, self._start_all)

    def _mend_disks(self) -> None:
        for node in self.nodes:
            if node.alive:
                node.disk.broken = node.disk.full = False

    # ------------------------------------------------------------------ faults

    def _later(self, longest_s: float, action: Callable[[], Any]) -> None:
        """Mostly soon."""
        wait = longest_s * self.schedule.random.random() ** 2
        self.schedule.after(wait, lambda: None if self.healed else action())

    def _node(self) -> NodeProcess:
        return self.schedule.random.choice(self.nodes)

    def _stop(self, node: NodeProcess, longest_s: float = 3.0, **how: bool) -> None:
        if node.alive:
            node.crash(**how)
        self._later(longest_s, partial(self._restart, node))

    def _restart(self, process: Any) -> None:
        if not process.alive:
            process.start()

    def _node_crash(self) -> None:
        self._stop(self._node())

    def _node_power(self) -> None:
        self._stop(self._node(), power=True)

    def _node_wipe(self) -> None:
        if sum(node.wipes for node in self.nodes) < 4:
            self._stop(self._node(), wipe=True)

    def _all_crash(self) -> None:
        power = self.schedule.happens(0.5)
        for node in self.nodes:
            self._stop(node, power=power)

    def _pause(self, process: Any) -> None:
        if process.alive and not process.paused:
            process.pause()
            self.schedule.note(f"{process.name} is paused")
            self._later(3.0, process.resume)

    def _node_pause(self) -> None:
        self._pause(self._node())

    def _coordinator_pause(self) -> None:
        self._pause(self.coordinator)

    def _coordinator_crash(self) -> None:
        if self.schedule.happens(0.5):
            self.coordinator.store.dies = self.schedule.random.choice(("before", "after"))
        else:
            self.coordinator.crash()
        # Whenever it does stop, it is started again.
        for wait in (0.1, 1.0, 2.0, 4.0):
            self._later(wait, partial(self._restart, self.coordinator))

    def _two(self) -> list[str]:
        names = ["coordinator", *(node.name for node in self.nodes), *(c.name for c in self._clients())]
        return self.schedule.random.sample(names, 2)

    def _clients(self) -> Iterator[Any]:
        yield from self.producers
        yield from self.consumers

    def _cut(self) -> None:
        """One process is cut off from the servers, or two from each other."""
        one, other = self._two()
        if self.schedule.happens(0.5):
            others = ["coordinator", *(node.name for node in self.nodes)]
        else:
            others = [other]
        links = {(one, name) for name in others} | {(name, one) for name in others}
        self._cut_links(links)

    def _cut_one_way(self) -> None:
        one, other = self._two()
        self._cut_links({(one, other)})

    def _cut_links(self, links: set[tuple[str, str]]) -> None:
        self.schedule.note(f"cut: {sorted(links)}")
        self.network.cut |= links
        for connection in tuple(self.network.connections):
            pair = (connection.owner.name, connection._server.owner.name)
            if pair in links or pair[::-1] in links:
                self.schedule.after(1.5, partial(self._still_cut, connection, pair))
        self._later(3.0, partial(self.network.cut.difference_update, links))

    def _still_cut(self, connection: Any, pair: tuple[str, str]) -> None:
        if pair in self.network.cut or pair[::-1] in self.network.cut:
            connection.lose()

    def _reset(self) -> None:
        if self.network.connections:
            self.schedule.random.choice(self.network.connections).lose()

    def _disk_broken(self) -> None:
        node = self._node()
        if node.alive:
            self.schedule.note(f"the disk of {node.name} fails")
            node.disk.broken = True
            self._later(3.0, partial(self._restart, node))

    def _disk_full(self) -> None:
        node = self._node()
        if node.alive:
            self.schedule.note(f"the disk of {node.name} is full")
            node.disk.full = True
            self._later(2.0, self._mend_disks)


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
