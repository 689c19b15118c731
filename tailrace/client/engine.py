"""The door to a client's I/O thread.

Producer, consumer and admin put work into it in three ways: a `Task` lives in the I/O thread and is
stepped after each wake-up; `submit` runs one action there; `call` asks one question and waits.
"""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from time import monotonic
from typing import Final

from tailrace.protocol.cluster import ClusterState, TopicInfo
from tailrace.protocol.errors import (
    ClosedError,
    ConnectionFailedError,
    InvalidArgumentError,
    MalformedRequestError,
    TailraceError,
    TimedOutError,
    UnsupportedVersionError,
)
from tailrace.protocol.messages import GetSnapshot, Reply, Request
from tailrace.protocol.parts import Payload
from tailrace.protocol.wire import encode
from tailrace.transport.endpoint import diagnose

from . import lifecycle
from .ahead import Written
from .answer import Answer, Heard
from .bootstrap import Bootstrap
from .desk import Desk
from .link import COORDINATOR, Link
from .loop import Loop, Task
from .notice import Notice
from .pending import Frame, ReplyHandler
from .retry import Backoff
from .waiting import wait_in_steps

__all__ = ["COORDINATOR", "Answer", "Engine", "ReplyHandler", "Task"]

HANDSHAKE_S: Final = 0.1
"""A connection that has been on its way for less stands in nobody's way."""
_FROM_ANOTHER_ROLE: Final = (MalformedRequestError, UnsupportedVersionError)
"""How a node answers what only a coordinator understands."""


class Engine:
    """One client's I/O thread: all sockets, the cluster view, timers.

    `name` is the thread's name and begins its error messages. Raises InvalidArgumentError for an
    address that does not parse; nothing is connected before `start`. After a fork, everything
    raises ClosedError in the child. Without `local`, nodes are reached over tcp also on this machine.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        request_timeout_ms: int = 30_000,
        name: str,
        local: bool = True,
    ) -> None:
        if request_timeout_ms < 1:
            raise InvalidArgumentError(f"request_timeout_ms is {request_timeout_ms}; it must be at least 1")
        self.name = name
        self.request_timeout_s = request_timeout_ms / 1000
        self.bootstrap = Bootstrap(bootstrap_servers)
        self.ending = False
        """Does its client only wait to be closed? Then who waits is told that Ctrl-C ends that."""
        self._disowned = False
        self._loop = Loop(self.bootstrap, name, local=local)
        self.ahead = self._loop.ahead
        self.wake: Callable[[], None] = self._loop.wake
        """Have all tasks stepped soon. Any thread; costs next to nothing while the I/O thread is awake."""

    # ------------------------------------------------------------------- life

    def start(self, *tasks: Task) -> None:
        """Start the I/O thread, which connects by itself, and in which `tasks` live from the beginning."""
        self._loop.tasks.extend(tasks)
        try:
            lifecycle.register(self)
            self._loop.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop: whoever waits gets ClosedError, tasks are told, sockets are closed. May be repeated."""
        if self._disowned:
            return
        loop = self._loop
        if loop.over is None:
            loop.over = ClosedError(f"{self.name} is closed")
        loop.end()
        lifecycle.unregister(self)

    def give_up(self) -> None:
        """Have whoever waits, or begins to, get ClosedError. Any thread; never waits. `close` must follow."""
        loop = self._loop
        if loop.over is None:
            loop.over = ClosedError(f"{self.name} is closed")
        if loop.begun:
            loop.stop()

    def __del__(self) -> None:
        """Forgotten: the thread ends by itself, since it knows the loop, not its engine."""
        loop = getattr(self, "_loop", None)
        if loop is None or self._disowned:
            return
        if not loop.begun:
            loop.release()
            return
        closed = loop.over is not None
        loop.stop()  # also if `close` was interrupted before it did
        if not closed:
            warnings.warn(f"{self.name} was not closed", ResourceWarning, stacklevel=2, source=self)

    def disown(self) -> None:
        """Called in a forked child, where there is no I/O thread: everything raises ClosedError."""
        self._disowned = True
        self._loop.over = ClosedError(
            f"{self.name} was made before fork() and belongs to process {os.getppid()}; make a new one here"
        )

    def check(self) -> None:
        """Raise ClosedError, or what made the I/O thread fail."""
        if self._loop.over is not None:
            raise self._loop.over

    # -------------------------------------------------- the cluster, any thread

    @property
    def cluster(self) -> ClusterState:
        """The state as last heard. Replaced with every change, never altered: any thread may read it."""
        return self._loop.copy.state

    @property
    def cluster_id(self) -> str:
        """The cluster's id; empty before the first snapshot."""
        return self._loop.follower.cluster_id

    @property
    def unclean_elections(self) -> int:
        """As of the last snapshot."""
        return self._loop.follower.unclean_elections

    @property
    def paths(self) -> dict[int, str]:
        """How payloads travel, by node id: "shared memory", "pipes" (nothing large yet), "frames" and why."""
        return self._loop.connections.links.paths()

    def topic(self, name: str) -> TopicInfo | None:
        """The topic as last heard of, or None."""
        return self._loop.copy.state.topic(name)

    def ready(self, timeout_s: float) -> None:
        """Wait for the first snapshot.

        Raises ConnectionFailedError with each address and its cause, or what made the address's
        owner refuse; ClosedError.
        """
        self.check()
        notice = self.notice("the coordinator", timeout_s, partial(self.obstacle, COORDINATOR))
        wait_in_steps(self._loop.answered.wait, timeout_s, notice.look)
        self.check()
        refusal = self._loop.follower.refusal
        if self._loop.copy.known:
            return
        if refusal is None:
            raise self.bootstrap.explain(timeout_s)
        raise self._no_coordinator(refusal)

    def refresh(self, timeout_s: float) -> ClusterState:
        """The state as it is now: asks the coordinator. Raises like `call`."""
        self.call(COORDINATOR, GetSnapshot, timeout_s=timeout_s, heard=self._loop.follower.take_reply)
        return self._loop.copy.state

    def request_refresh(self) -> None:
        """The cluster must have changed: get a new snapshot soon. Cheap to repeat, never waits."""
        self._loop.follower.want_snapshot()
        self._loop.wake()

    def wait_for_topic(self, name: str, timeout_s: float) -> TopicInfo:
        """The topic, if it exists at all: an unknown one is asked for once.

        Raises UnknownTopicError with similar names, or like `call` when nobody can be asked.
        """
        self.check()
        topic = self.topic(name)
        if topic is not None:
            return topic
        return self.refresh(timeout_s).existing_topic(name)

    # ------------------------------------------------------ what is waited for

    def notice(self, what: str, timeout_s: float, obstacle: Callable[[], str]) -> Notice:
        """For a wait of up to `timeout_s` for `what`."""
        hint = ", Ctrl-C ends it" if self.ending else ""
        return Notice(f"{self.name} waits for {what}", timeout_s, obstacle, hint)

    def obstacle(self, destination: int | None = None) -> str:
        """Which connections (to `destination`; None: to all) are wanted and not there, and why; or "".

        Tries each address with a plain socket, which may take a second: not for the I/O thread.
        """
        missing = self._loop.connections.links.missing(since=monotonic() - HANDSHAKE_S)
        return "; ".join(self._why(link) for link in missing if destination in (None, link.destination))

    def misses(self, destination: int) -> bool:
        """Is a connection to it wanted, and not there?"""
        return any(link.destination == destination for link in self._loop.connections.links.missing())

    # -------------------------------------------------------- work, any thread

    def pause(self, seconds: float) -> None:
        """Let time pass, in any thread but the I/O thread. Raises ClosedError when closed meanwhile."""
        if wait_in_steps(self._loop.ended.wait, seconds):
            self.check()

    def desk(self) -> Desk:
        """For one thread of the application's, which waits there."""
        return self._loop.new_desk()

    def submit(self, action: Callable[[], None]) -> None:
        """Run `action` in the I/O thread soon. Raises ClosedError once closed."""
        self.check()
        self._loop.defer(action)
        # The thread's last look may have come before the action did.
        if self._loop.ended.is_set() and self._loop.take_back(action):
            self.check()

    def ask(
        self,
        destination: int,
        request: Callable[[int], Request],
        frames: Sequence[Payload] = (),
        *,
        timeout_s: float,
        heard: Heard | None = None,
    ) -> Answer:
        """Send one request from any thread; the answer can be waited for. `heard`: see `Answer`."""
        answer = Answer(heard)
        # Made here, so that a request that cannot be encoded hurts the one who made it, and nobody else.
        connections = self._loop.connections
        request_id = connections.next_id()
        header = encode(request(request_id))

        def send() -> None:
            connections.request(
                destination,
                request_id,
                header,
                frames,
                on_reply=answer.resolve,
                timeout_s=timeout_s,
                now=monotonic(),
            )

        self.submit(send)
        return answer

    def call(
        self,
        destination: int,
        request: Callable[[int], Request],
        frames: Sequence[Payload] = (),
        *,
        timeout_s: float,
        fatal: tuple[type[TailraceError], ...] = (),
        heard: Heard | None = None,
    ) -> tuple[Reply, Sequence[Frame]]:
        """Ask and wait, again and again with growing pauses while the error is retriable.

        Raises the last error when `timeout_s` is over, one that is not retriable or of a class in
        `fatal` at once, ClosedError when the engine is closed meanwhile. A retry may follow a
        request that was carried out and whose reply was lost. Not for the I/O thread.
        """
        if threading.current_thread() is self._loop.thread:
            raise TailraceError(f"{self.name}: a callback would wait for itself; do this in another thread")
        started = monotonic()
        backoff = Backoff(Random())
        error: TailraceError | None = None
        whom = "the coordinator" if destination == COORDINATOR else f"node {destination}"
        notice = self.notice(
            whom, timeout_s, lambda: self.obstacle(destination) or ("" if error is None else str(error))
        )
        while True:
            left_s = max(0.0, started + timeout_s - monotonic())
            answer = self.ask(destination, request, frames, timeout_s=left_s, heard=heard)
            outcome = answer.outcome(left_s, notice.look)
            if not isinstance(outcome, TailraceError):
                return outcome
            if destination == COORDINATOR and isinstance(outcome, _FROM_ANOTHER_ROLE):
                raise self._no_coordinator(outcome) from outcome
            if not outcome.retriable or isinstance(outcome, fatal):
                raise outcome
            # An attempt that had little time left says less than what ended the one before.
            if error is None or left_s > timeout_s / 2 or not isinstance(outcome, TimedOutError):
                error = outcome
            pause_s = backoff.pause()
            if monotonic() + pause_s >= started + timeout_s:
                break
            self.pause(pause_s)
        if destination == COORDINATOR and isinstance(error, ConnectionFailedError):
            raise self.bootstrap.explain(monotonic() - started) from error
        raise error

    # -------------------------------------------------- only in the I/O thread

    def request(
        self,
        destination: int,
        request: Callable[[int], Request],
        frames: Sequence[Payload] = (),
        *,
        on_reply: ReplyHandler,
        timeout_s: float | None = None,
        reply_bytes: int = 0,
        swift: bool = False,
        written: Written | None = None,
    ) -> None:
        """Send a request, or keep it until `destination` can be reached. Only in the I/O thread.

        `on_reply` is called in the I/O thread exactly once, never before this returns: with the
        reply and its frames, or with the error that came instead. `frames` must not change before. Up to
        `reply_bytes` of its payload come by way of shared memory, if the node is on this machine. `swift`: a
        small reply is handled by a thread that waits at a `Desk`, perhaps twice. `written`: it was, `Ahead`.
        """
        assert threading.get_ident() == self._loop.thread_id, "sockets belong to the I/O thread"
        connections = self._loop.connections
        request_id = connections.next_id() if written is None else written.request_id
        connections.request(
            destination,
            request_id,
            encode(request(request_id)),
            frames,
            on_reply=on_reply,
            timeout_s=self.request_timeout_s if timeout_s is None else timeout_s,
            now=monotonic(),
            reply_bytes=reply_bytes,
            swift=swift,
            sent=written is not None and written.sent,
        )

    def tell(
        self, destination: int, request: Callable[[int], Request], frames: Sequence[Payload] = ()
    ) -> bool:
        """Send a request that gets no reply (acks=0). Only in the I/O thread.

        False when there is no connection yet, or its queue is full: try again in a later `step`.
        """
        assert threading.get_ident() == self._loop.thread_id, "sockets belong to the I/O thread"
        connections = self._loop.connections
        header = encode(request(connections.next_id()))
        return connections.tell(destination, header, frames, monotonic())

    # ------------------------------------------------------------------ inside

    def _why(self, link: Link) -> str:
        if link.destination == COORDINATOR:
            return self.bootstrap.causes()
        return f"{link}: {diagnose(link.endpoint)}"

    def _no_coordinator(self, error: TailraceError) -> TailraceError:
        # Most likely it is a node; what it says of a request that is not for it helps nobody.
        hint = "give the address that `tailrace up` has told"
        return type(error)(f"{self.bootstrap} answered, but not as a coordinator: {hint} ({error})")
