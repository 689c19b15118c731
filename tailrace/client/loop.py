"""The I/O thread: the only place where a client waits for sockets, and the only thread that uses them."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from random import Random
from time import monotonic
from typing import Final, Protocol

from tailrace.protocol.cluster_copy import ClusterCopy
from tailrace.protocol.errors import ClosedError, ConnectionFailedError, TailraceError
from tailrace.transport.connection import Connection
from tailrace.transport.context import new_context
from tailrace.transport.pipes import Pipes
from tailrace.transport.poller import Poller, Source
from tailrace.transport.publisher import Subscriber
from tailrace.transport.wakeup import Wakeup

from .ahead import Ahead
from .bootstrap import Bootstrap
from .connections import Connections
from .desk import Desk
from .follower import Follower
from .link import COORDINATOR, Location
from .waiting import Sign

_OF_CONNECTIONS: Final = (Connection, Pipes)
JOIN_TIMEOUT_S: Final = 10.0
"""Who closes waits so long for the I/O thread, which never blocks, so that only a bug makes it later."""
_log = logging.getLogger(__name__)


class Task(Protocol):
    """What lives in the I/O thread. All methods are called there; none may block or raise."""

    def step(self, now: float) -> float | None:
        """Do what can be done after a wake-up.

        Returns when to be called again at the latest (monotonic seconds), None if only an event
        can make work.
        """

    def cluster_changed(self) -> None:
        """`engine.cluster` is another than at the last call, or since the task came. `step` follows."""

    def closed(self, error: TailraceError | None) -> None:
        """The engine stops, for `error` if it failed: resolve everything. The last call of all."""


class Loop:
    """Sockets, cluster copy, timers and tasks of one client, and the thread that drives them."""

    def __init__(self, bootstrap: Bootstrap, name: str, *, local: bool = True) -> None:
        self.name = name
        self._local = local
        self.copy = ClusterCopy()
        self.tasks: list[Task] = []
        self.over: TailraceError | None = None
        """Why no more work is taken."""
        self.answered = Sign()
        """There is a first snapshot, or a reason why there is none, or the end has come."""
        self.ended = Sign()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.begun = False
        """Is the thread there, or about to be? Then it gives back what there is."""
        self.thread_id: int | None = None
        """The thread's, once it runs."""
        self._bootstrap = bootstrap
        self._context = new_context()
        self._wakeup = Wakeup()
        self._poller = Poller()
        self._actions: deque[Callable[[], None]] = deque()
        self._sleeping = False
        self._waking: list[None] | None = None
        """Who has begun to wake it last, and may not have done so: a signal handler can come between."""
        self._woken = False
        self._flagged = False
        """The wake-up's flag is set, and was seen."""
        self._stopping = False
        random = Random()
        self.connections = Connections(
            poller=self._poller,
            connect=partial(Connection, self._context),
            locate=self._locate,
            defer=self.defer,
            on_ready=self._connection_ready,
            on_impatient=self._connection_impatient,
            random=random,
        )
        self._desks: list[Desk] = []
        self.ahead = Ahead(self.connections.links, self.connections.next_id, self.wake)
        self.follower = Follower(
            copy=self.copy,
            connections=self.connections,
            poller=self._poller,
            subscribe=partial(Subscriber, self._context),
            random=random,
            clock=monotonic,
        )

    # ------------------------------------------------------------ any thread

    def defer(self, action: Callable[[], None]) -> None:
        """Run `action` in the I/O thread soon. Nothing is lost: what comes late is run at the end."""
        self._actions.append(action)
        self.wake()

    def take_back(self, action: Callable[[], None]) -> bool:
        """Take an action out again; False if it was run, or will be."""
        try:
            self._actions.remove(action)
        except ValueError:
            return False
        return True

    def wake(self) -> None:
        """Go round once more, soon."""
        self._woken = True
        if self._sleeping or self._waking is not None:
            me: list[None] = []  # not a call from here on
            self._waking, self._sleeping = me, False
            self._wakeup.set()
            if self._waking is me:  # what a signal handler raises before leaves it to the next one who wakes
                self._waking = None

    def start(self) -> None:
        """Start the thread. A signal handler that raises may leave it on its way: `stop` it then."""
        self.begun = True
        self.thread.start()

    def new_desk(self) -> Desk:
        """It ends with the thread. Before that is started."""
        self._desks.append(Desk(self.connections.piped, self.wake))
        return self._desks[-1]

    def stop(self) -> None:
        """End the thread soon."""
        self._stopping = True
        self._wakeup.set()

    def end(self) -> None:
        """Stop, and wait for the thread; where it was never to be, give back what there is."""
        self.stop()
        if not self.begun:
            self.release()
        elif self.thread.is_alive() and threading.current_thread() is not self.thread:
            self.thread.join(JOIN_TIMEOUT_S)
            if self.thread.is_alive():
                _log.error("%s: the I/O thread did not stop within %s s", self.name, JOIN_TIMEOUT_S)

    def release(self) -> None:
        """Give descriptors and the context back; all sockets are closed."""
        for desk in self._desks:
            desk.end()
        self._poller.close()
        self._wakeup.close()
        self._context.term()

    # --------------------------------------------------------- the I/O thread

    def _run(self) -> None:
        error: TailraceError | None = None
        self.thread_id = threading.get_ident()
        try:
            self._loop()
        except TailraceError as cause:
            error = self.over = type(cause)(f"{self.name}: {cause}")
            error.__cause__ = cause
            _log.error("%s: the I/O thread ends: %s", self.name, cause)
        except BaseException as cause:  # noqa: BLE001 - whatever it is, every caller must hear of it
            _log.exception("%s: the I/O thread failed", self.name)
            error = self.over = TailraceError(f"{self.name}: the I/O thread failed: {cause!r}")
            error.__cause__ = cause
        self._finish(error)

    def _loop(self) -> None:
        """Wait, take in what has come, do what follows from it; and again."""
        self._poller.add(self._wakeup)
        self.ahead.turn.acquire()
        while not self._stopping:
            for source in self._wait(self._step(monotonic())):
                if source is self._wakeup:
                    self._flagged = True
                elif isinstance(source, _OF_CONNECTIONS):
                    self.connections.receive(source, monotonic())
                elif isinstance(source, Subscriber):
                    self.follower.receive(monotonic())

    def _step(self, now: float) -> float:
        """Everything that is due; when there will be more if nothing comes in (monotonic s, infinity)."""
        self._woken = False  # what was left to this thread before is found from here on
        connections, follower = self.connections, self.follower
        if connections.piped.unfinished:  # first of all: what follows may build on it
            connections.take_over(now)
        for _ in range(len(self._actions)):
            self._actions.popleft()()
        if follower.changed:
            follower.changed = False
            connections.relocate(now)
            self.answered.set()
            for task in tuple(self.tasks):
                task.cluster_changed()
        if now >= connections.due_at:
            connections.advance(now)
        soonest = inf
        for task in tuple(self.tasks):
            due = task.step(now)
            if due is not None and due < soonest:
                soonest = due
        if follower.wanted or now >= follower.due_at:
            follower.tick(now)
        if follower.refusal is not None:
            self.answered.set()
        return min(soonest, connections.due_at, follower.due_at)

    def _wait(self, until: float) -> list[Source]:
        if self._flagged:  # only now: what was done meanwhile did not have to wait for it
            self._flagged = False
            self._wakeup.clear()
        if self.connections.piped.lent:
            self.connections.piped.take_back()
        # Whoever hands something over looks at `_sleeping` afterwards, so that one of us sees the other.
        self._sleeping = True
        if self._actions or self._woken or self._stopping:
            timeout_s: float | None = 0.0
        else:
            timeout_s = None if until == inf else max(0.0, until - monotonic())
        ahead = self.ahead
        ahead.turn.release()
        sources = self._poller.poll(timeout_s)
        ahead.turn.acquire()
        self._sleeping = False
        if ahead.noted:
            ahead.noted = False
            for task in tuple(self.tasks):
                task.step(monotonic())
        return sources

    def _locate(self, destination: int) -> Location | TailraceError:
        if destination == COORDINATOR:
            return Location(self._bootstrap.current)
        node = self.copy.state.nodes.get(destination)
        if node is None:
            return ConnectionFailedError(f"node {destination} is not part of the cluster")
        if not node.alive:
            return ConnectionFailedError(f"node {destination} is down")
        return Location(node.listener if self._local else node.listener.tcp, node.node_epoch)

    def _connection_ready(self, destination: int) -> None:
        if destination == COORDINATOR:
            self.follower.want_snapshot()

    def _connection_impatient(self, destination: int) -> None:
        if destination == COORDINATOR:
            self._bootstrap.rotate()

    # ---------------------------------------------------------------- the end

    def _finish(self, error: TailraceError | None) -> None:
        """Nothing stays unanswered, whatever handlers do."""
        over = self.over = self.over or ClosedError(f"{self.name} is closed")
        self.follower.close()
        self.connections.close(over)
        self._drain_actions()
        for task in self.tasks:
            self._guarded(partial(task.closed, error))
        self.ended.set()
        self.answered.set()
        self._drain_actions()
        self.release()

    def _drain_actions(self) -> None:
        while self._actions:
            self._guarded(self._actions.popleft())

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - logged; the others must still hear of the end
            _log.exception("%s: a handler failed at the end", self.name)
