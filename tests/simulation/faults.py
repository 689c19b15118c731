"""What befalls a simulated cluster: each fault at its rate, by the seed's dice, until all is to heal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from random import Random
from typing import Any

from .clients import Client, Producer
from .coordinator_process import CoordinatorProcess
from .node_process import NodeProcess
from .schedule import Schedule
from .sockets import Network, Weather

WIPES_MAX = 4
Link = tuple[str, str]
"""From one process to another."""


@dataclass(frozen=True)
class Faults:
    """How often each befalls the cluster, a second; drawn by the seed, most of them 0."""

    node_crash: float = 0.0
    node_power: float = 0.0
    node_wipe: float = 0.0
    node_restore: float = 0.0
    node_replaced: float = 0.0
    node_pause: float = 0.0
    node_exile: float = 0.0
    coordinator_crash: float = 0.0
    coordinator_pause: float = 0.0
    coordinator_twice: float = 0.0
    cut: float = 0.0
    cut_one_way: float = 0.0
    reset: float = 0.0
    disk_broken: float = 0.0
    disk_full: float = 0.0
    log_broken: float = 0.0
    all_crash: float = 0.0
    lull: float = 0.0

    @property
    def loses_disks(self) -> bool:
        return bool(self.node_wipe or self.node_restore or self.node_replaced)

    @classmethod
    def draw(cls, random: Random) -> "Faults":
        """Each run has some of the faults only, and those often: so they meet."""
        return cls(**{field.name: random.choice((0.0, 0.0, 0.0, 0.4, 1.0)) for field in fields(cls)})


class Chaos:
    """Strikes from `begin` on, until `heal`."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        coordinator: CoordinatorProcess,
        nodes: Sequence[NodeProcess],
        clients: Sequence[Client],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self.coordinators = [coordinator]
        """The last of them is the one that was started last."""
        self._nodes = nodes
        self._clients = clients
        self._healed = False

    def begin(self, faults: Faults) -> None:
        for field in fields(Faults):
            if rate := getattr(faults, field.name):
                self._befall(getattr(self, f"_{field.name}"), rate)

    def heal(self) -> None:
        self._schedule.note("all heals")
        self._healed = True
        self._network.weather.__dict__.update(Weather().__dict__)
        self._network.cut.clear()
        self._mend_disks()
        for process in (*self.coordinators, *self._nodes):
            if process.paused:
                process.resume()
        self._start_all()

    # -------------------------------------------------------------- when and who

    def _befall(self, strike: Callable[[], None], rate: float) -> None:
        def struck() -> None:
            if not self._healed:
                strike()
                self._befall(strike, rate)

        self._schedule.after(self._schedule.random.expovariate(rate), struck)

    def _later(self, longest_s: float, action: Callable[[], Any], least_s: float = 0.0) -> None:
        """Mostly soon."""
        wait = least_s + longest_s * self._schedule.random.random() ** 2
        self._schedule.after(wait, lambda: None if self._healed else action())

    def _node(self) -> NodeProcess:
        return self._schedule.random.choice(self._nodes)

    def _start_all(self) -> None:
        """Also those that end by themselves meanwhile."""
        if not any(coordinator.alive for coordinator in self.coordinators):
            self.coordinators[-1].start()
        for node in self._nodes:
            self._restart(node)
        self._schedule.after(0.5, self._start_all)

    def _restart(self, process: NodeProcess | CoordinatorProcess) -> None:
        if not process.alive:
            process.start()

    # -------------------------------------------------------------------- nodes

    def _stop(self, node: NodeProcess, longest_s: float = 3.0, **how: bool) -> None:
        if node.alive:
            node.crash(**how)
        self._later(longest_s, partial(self._restart, node))

    def _node_crash(self) -> None:
        self._stop(self._node())

    def _node_power(self) -> None:
        self._stop(self._node(), power=True)

    def _may_wipe(self) -> bool:
        return sum(node.wipes for node in self._nodes) < WIPES_MAX

    def _node_wipe(self) -> None:
        if self._may_wipe():
            self._stop(self._node(), wipe=True)

    def _node_restore(self) -> None:
        if self._may_wipe():
            self._stop(self._node(), restore=True)

    def _node_replaced(self) -> None:
        """By a machine with an empty disk, cut off from the other nodes at first, while little happens."""
        if not self._may_wipe():
            return
        node = self._node()
        self._lull()
        self._stop(node, 0.5, wipe=True)
        self._cut_links(_between(node.name, (other.name for other in self._nodes)))

    def _all_crash(self) -> None:
        power = self._schedule.happens(0.5)
        for node in self._nodes:
            self._stop(node, power=power)

    def _node_pause(self) -> None:
        self._pause(self._node())

    def _pause(self, process: NodeProcess | CoordinatorProcess) -> None:
        if process.alive and not process.paused:
            process.pause()
            self._schedule.note(f"{process.name} is paused")
            self._later(3.0, process.resume)

    # ---------------------------------------------------------- the coordinator

    def _coordinator_pause(self) -> None:
        self._pause(self.coordinators[-1])

    def _coordinator_crash(self) -> None:
        coordinator = self.coordinators[-1]
        if self._schedule.happens(0.5):
            coordinator.store.dies = self._schedule.random.choice(("before", "after"))
        else:
            coordinator.crash()
        # Whenever it does stop, it is started again.
        for wait in (0.1, 1.0, 2.0, 4.0):
            self._later(wait, partial(self._restart, coordinator))

    def _coordinator_twice(self) -> None:
        """Another one is started on the same store, often while the first is only paused."""
        if self._schedule.happens(0.5):
            self._pause(self.coordinators[-1])
        another = self.coordinators[-1].another()
        another.start()
        if another.alive:
            self.coordinators.append(another)

    # -------------------------------------------------------------- the network

    def _servers(self) -> list[str]:
        return ["coordinator", *(node.name for node in self._nodes)]

    def _two(self) -> tuple[str, str]:
        """One of all, and a server."""
        random, servers = self._schedule.random, self._servers()
        one = random.choice([*servers, *(client.name for client in self._clients)])
        return one, random.choice([name for name in servers if name != one])

    def _cut(self) -> None:
        """One process is cut off from the servers, or two from each other."""
        one, other = self._two()
        self._cut_links(_between(one, self._servers() if self._schedule.happens(0.5) else [other]))

    def _cut_one_way(self) -> None:
        pair = self._two()
        self._cut_links({pair if self._schedule.happens(0.5) else pair[::-1]})

    def _node_exile(self) -> None:
        """For clients it is there still, and for long; for the other servers it is not."""
        self._cut_links(_between(self._node().name, self._servers()), least_s=1.0)

    def _cut_links(self, links: set[Link], least_s: float = 0.0) -> None:
        self._schedule.note(f"cut: {sorted(links)}")
        self._network.cut |= links
        for connection in tuple(self._network.connections):
            pair = (connection.owner.name, connection._server.owner.name)
            if pair in links or pair[::-1] in links:
                self._schedule.after(1.5, partial(self._still_cut, connection, pair))
        self._later(3.0 - least_s, partial(self._network.cut.difference_update, links), least_s)

    def _still_cut(self, connection: Any, pair: tuple[str, str]) -> None:
        if pair in self._network.cut or pair[::-1] in self._network.cut:
            connection.lose()

    def _reset(self) -> None:
        if self._network.connections:
            self._schedule.random.choice(self._network.connections).lose()

    # ------------------------------------------------------------ disks, clients

    def _disk_broken(self) -> None:
        node = self._node()
        if node.alive:
            self._schedule.note(f"the disk of {node.name} fails")
            node.disk.broken = True
            self._later(3.0, partial(self._restart, node))

    def _disk_full(self) -> None:
        node = self._node()
        if node.alive:
            self._schedule.note(f"the disk of {node.name} is full")
            node.disk.full = True
            self._later(2.0, self._mend_disks)

    def _log_broken(self) -> None:
        """One log, of which the node will find out when it appends to it or cuts it."""
        node = self._node()
        if node.alive and node.storage.logs and not (node.disk.broken or node.disk.full):
            key = self._schedule.random.choice(sorted(node.storage.logs))
            self._schedule.note(f"a log of {node.name} is spoilt: {key[0].hex()}-{key[1]}")
            node.spoil(key)

    def _mend_disks(self) -> None:
        for node in self._nodes:
            if node.alive:
                node.disk.broken = node.disk.full = False

    def _lull(self) -> None:
        """Nothing is produced for a while: offsets stay as they are."""
        until = self._schedule.now + self._schedule.between(0.5, 1.5)
        for client in self._clients:
            if isinstance(client, Producer):
                client.lull_until = max(client.lull_until, until)


def _between(one: str, others: Iterable[str]) -> set[Link]:
    """Both ways."""
    return {link for other in others if other != one for link in ((one, other), (other, one))}
