"""The coordinator of production on simulated sockets and time, with a store that is a list of events."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.handlers.init_producer import SKIPPED_BITS, skip_ids
from tailrace.coordinator.machine import Machine, Settings
from tailrace.coordinator.private_state import ControllerEpochRaised, PrivateChange, StoreOpened
from tailrace.coordinator.probing import Probing
from tailrace.coordinator.service import Service
from tailrace.coordinator.state import State
from tailrace.coordinator.store.lmdb_store import LOCK_FILE
from tailrace.durable import LockFile, LockHeldError
from tailrace.protocol.cluster import Change
from tailrace.protocol.limits import OPENINGS_KEPT_MAX
from tailrace.protocol.messages import Update

from .node_process import COORDINATOR
from .schedule import Process, Schedule, Violation
from .sockets import Network, SimProbe, SimPublisher, SimServer

SESSION_MS = 1_000
BEAT_S = 0.25


class Crash(Exception):  # noqa: N818
    """The process was killed while it wrote."""


class EventStore:
    """What the coordinator has made durable. `stored` is told of each change with the state before it."""

    def __init__(self, folder: Path, stored: Callable[[State, Change], None]) -> None:
        self._folder = folder
        self._events: list[tuple[Sequence[Update], Sequence[PrivateChange]]] = []
        self._stored = stored
        self._mirror = State("cluster")
        self.dies: str = ""
        """`before` or `after`: the next commit is the last thing it does."""

    @property
    def state(self) -> State:
        """What is durable, for those who check."""
        return self._mirror

    def open(self) -> LockFile:
        """As `LmdbStore` does it. Raises LockHeldError."""
        return LockFile(self._folder / LOCK_FILE)

    def load(self) -> State:
        state = State("cluster")
        for updates, private in self._events:
            for change in private:
                state.apply_private(change)
            for update in updates:
                state.apply(update)
        return state

    def commit(self, updates: Sequence[Update], private: Sequence[PrivateChange]) -> None:
        dies, self.dies = self.dies, ""
        if dies == "before":
            raise Crash
        self._events.append((list(updates), list(private)))
        for secret in private:
            self._mirror.apply_private(secret)
        for update in updates:
            if update.version != self._mirror.cluster.version + 1:
                raise Violation(f"two coordinators write to one store, both version {update.version}")
            for change in update.changes:
                self._stored(self._mirror, change)
            self._mirror.apply(update)
        if dies:
            raise Crash


class _NoGroups:
    def load(self) -> GroupsState:
        return GroupsState()

    def commit(self, changes: Sequence[Any]) -> None:
        raise AssertionError(changes)


class CoordinatorProcess(Process):
    """As `coordinator.main.Coordinator` runs it."""

    def __init__(self, schedule: Schedule, network: Network, store: EventStore) -> None:
        super().__init__("coordinator", schedule)
        self.store = store
        self._network = network

    def another(self) -> "CoordinatorProcess":
        """One more on the same store."""
        return CoordinatorProcess(self.schedule, self._network, self.store)

    def start(self) -> None:
        schedule = self.schedule
        try:
            self._lock = self.store.open()
        except LockHeldError:
            schedule.note("another coordinator has the store")
            return
        self.store.dies = ""
        state = self.store.load()
        raised = ControllerEpochRaised(state.cluster.controller_epoch + 1)
        skipped = skip_ids(state, schedule.random.getrandbits(SKIPPED_BITS))
        opened = StoreOpened((*state.openings, schedule.random.getrandbits(63))[-OPENINGS_KEPT_MAX:])
        for change in (raised, skipped, opened):
            state.apply_private(change)
        self.store.commit([], [raised, skipped, opened])
        self._server = SimServer(self._network, self, COORDINATOR)
        publisher = SimPublisher(self._network, self, "sim://publisher")
        groups = _NoGroups()
        self.machine = Machine(state, groups.load(), Settings(publisher.listener, SESSION_MS), schedule.now)
        self.service = Service(
            self.machine,
            self.store,
            groups,
            publisher.send,
            self._server.send,
            new_id=lambda: schedule.random.randbytes(16),
        )
        self._probing = Probing(lambda listener: SimProbe(self._network, self, listener.tcp))
        self._next_beat = schedule.now
        schedule.note(f"the coordinator starts, controller epoch {raised.controller_epoch}")
        self.begin()

    def step(self) -> None:
        try:
            self._step()
        except Crash:
            self.crash()

    def _step(self) -> None:
        now, wall_ms = self.schedule.now, self.schedule.wall_ms()
        burst = []
        while (incoming := self._server.receive()) is not None:
            burst.append(incoming)
        if burst:
            self.service.serve(burst, now, wall_ms)
        if gone := self._server.take_gone():
            self.service.gone(gone, now, wall_ms)
        self.machine.refused(self._probing.refused(self.machine.missing(), now))
        next_tick = self.machine.next_tick()
        if next_tick is not None and now >= next_tick:
            self.service.tick(now, wall_ms)
        if now >= self._next_beat:
            self.service.beat()
            self._next_beat = now + BEAT_S
        times = (self._next_beat, self.machine.next_tick(), self._probing.next_look(now))
        self.wake(min(due for due in times if due is not None))

    def crash(self) -> None:
        if self.alive:
            self.schedule.note("the coordinator stops")
            self.end()
            self._server.close()
            self._lock.release()
