"""Brings the faults of a plan on, and takes them away again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, TypeVar

from tailrace.processes.launch import COORDINATOR, Role

from .disks import Disk
from .history import Begun, Crashed, Ended, Event
from .network import Network, cuts_of
from .plan import Fault
from .processes import Processes

T = TypeVar("T")

RESTART_AFTER_S: Final = 1.0
"""A process that ended by itself is started again, as a supervisor would."""


class Faults:
    """What is on at any time. `leaders` tells which node leads each partition, as far as is known.

    Times are in seconds since the start. Everything that happens is told to `note`.
    """

    def __init__(
        self,
        plan: Sequence[Fault],
        processes: Processes,
        leaders: Callable[[], Mapping[int, int]],
        note: Callable[[Event], None],
        *,
        disks: Mapping[Role, Disk],
        network: Network | None,
    ) -> None:
        self._coming = list(plan)
        self._processes = processes
        self._leaders = leaders
        self._note = note
        self._disks = disks
        self._network = network
        self._origin = inf
        self._on: list[tuple[float, Fault, Callable[[], None]]] = []
        self._restarts: list[tuple[float, Role]] = []
        self._hit: dict[int, tuple[Role, ...]] = {}

    @property
    def done(self) -> bool:
        """Has every fault been brought on and taken away?"""
        return not self._coming and not self._on

    @property
    def on(self) -> list[str]:
        """What is on now, for people."""
        return [
            f"{fault.kind} {', '.join(role.name for role in self._hit[fault.number])}"
            for _, fault, _ in self._on
        ]

    def step(self, now: float) -> None:
        """Do what is due."""
        for due in [due for due in self._on if due[0] <= now]:
            self._on.remove(due)
            _, fault, undo = due
            undo()
            self._note(Ended(at_s=now, number=fault.number))
        while self._coming and self._coming[0].at_s <= now - self._origin:
            self._begin(self._coming.pop(0), now)
        for role, reason in self._processes.ended():
            self._note(Crashed(at_s=now, process=role.name, reason=reason))
            self._restarts.append((now + RESTART_AFTER_S, role))
        for again in [again for again in self._restarts if again[0] <= now]:
            self._restarts.remove(again)
            self._processes.start(again[1])

    def start(self, now: float) -> None:
        """The plan's time begins."""
        self._origin = now

    def drop_coming(self) -> None:
        """No more faults; those that are on go on."""
        self._coming.clear()

    def _begin(self, fault: Fault, now: float) -> None:
        roles = self._targets(fault)
        if not roles:
            return  # whatever it could hit is down already
        self._hit[fault.number] = roles
        how, undo = self._bring_on(fault, roles)
        name = f"{fault.name} {how}".rstrip()
        names = [role.name for role in roles]
        self._note(Begun(at_s=now, number=fault.number, fault=name, processes=names))
        self._on.append((now + fault.lasts_s, fault, undo))

    def _targets(self, fault: Fault) -> tuple[Role, ...]:
        """What the fault hits: of what still runs, and is not hit already."""
        hit = {role for _, other, _ in self._on for role in self._hit[other.number]}
        free = [role for role in self._processes.running if role not in hit]
        if fault.target == "all":
            return tuple(self._processes.running)
        if fault.target == "coordinator":
            return tuple(role for role in free if role == COORDINATOR)
        nodes = [role for role in free if role != COORDINATOR]
        if not nodes:
            return ()
        leaders = self._leaders()
        partitions = sorted(leaders)
        partition = partitions[fault.pick % len(partitions)] if partitions else -1
        leader = Role(leaders.get(partition, -1))
        wanted = [role for role in nodes if (role == leader) == (fault.target == "leader")] or nodes
        return (wanted[fault.pick % len(wanted)],)

    def _bring_on(self, fault: Fault, roles: Sequence[Role]) -> tuple[str, Callable[[], None]]:
        if fault.kind == "kill":
            return self._kill(roles)
        if fault.kind == "stop":
            return self._stop(roles)
        if fault.kind == "disk-full":
            return self._fill(roles)
        assert self._network is not None
        network = self._network
        how, cuts = cuts_of(fault.target, roles[0], self._processes.roles, fault.pick)
        network.cut(cuts)
        return how, partial(network.heal, cuts)

    def _kill(self, roles: Sequence[Role]) -> tuple[str, Callable[[], None]]:
        for role in roles:
            self._processes.kill(role)
        return "", partial(_each, self._processes.start, roles)

    def _stop(self, roles: Sequence[Role]) -> tuple[str, Callable[[], None]]:
        for role in roles:
            self._processes.suspend(role)
        return "", partial(_each, self._processes.resume, roles)

    def _fill(self, roles: Sequence[Role]) -> tuple[str, Callable[[], None]]:
        disks = [self._disks[role] for role in roles if role in self._disks]
        for disk in disks:
            disk.fill()
        return "", partial(_each, Disk.free, disks)


def _each(action: Callable[[T], None], things: Iterable[T]) -> None:
    for thing in things:
        action(thing)
