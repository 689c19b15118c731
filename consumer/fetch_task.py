"""The consumer's part in the I/O thread: sends the fetches that the fetcher plans, brings it the replies.

The fetcher is shared by two threads under `lock`, which is held for microseconds, never while waiting.

What trickles in is handed over at once: the I/O thread, which has woken the application, lets it go first.
Both need the interpreter, and to ask for more takes as long as to hand over a record.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from tailrace.client.engine import Engine
from tailrace.client.pending import Frame
from tailrace.protocol.errors import ClosedError, MalformedRequestError, TailraceError
from tailrace.protocol.limits import LOCAL_PAYLOAD_BYTES_MIN
from tailrace.protocol.messages import Fetch, Fetched, ListOffsets, OffsetsListed, Reply

from .bell import Bell
from .config import ConsumerConfig
from .fetch_plans import FetchPlan, LookupPlan
from .fetcher import Fetcher

GOES_FIRST_S: Final = 0.0005
"""The application goes first for so long: longer than a record takes, shorter than anybody notices."""


class FetchTask:
    """A `tailrace.client.engine.Task`. The application's thread waits here for something to hand over."""

    def __init__(
        self, engine: Engine, fetcher: Fetcher, lock: threading.Lock, config: ConsumerConfig
    ) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self._config = config
        self._lock = lock
        self._desk = engine.desk()
        self._trickles = False
        """Was there little in the last reply? Then the application's thread reads the next one itself."""
        self._back = Bell()
        self._goes_first = False
        """Was it woken for little? Then it goes first, until it waits again."""
        self._waits = False
        """Is the application's thread in a wait?"""
        self._woken = False
        self._listener: Callable[[], None] | None = None
        self.cluster_moved = False
        """The cluster state was replaced, or a leader has told where a log lies. Cleared by the application's
        thread when it has looked at it."""
        self.group_moved = False
        """The group has another assignment for us, or has lost us. Cleared as `cluster_moved`."""
        self.loop_ends = False
        """Is a `for` loop to come for more before its next record? Since the last look at that `wakeup` was
        called, or the group has moved."""
        self._over = False
        """Has the engine ended? It knows why."""

    # --------------------------------------------------------- in the I/O thread

    def step(self, now: float) -> float | None:
        """Send what is to be sent."""
        with self._lock:
            plans = self._fetcher.plan(now)
            retry_at = self._fetcher.retry_at
            outdated, self._fetcher.outdated = self._fetcher.outdated, False
        for plan in plans:
            if isinstance(plan, FetchPlan):
                self._fetch(plan)
            else:
                self._look_up(plan)
        if outdated:
            self._engine.request_refresh()
        return retry_at

    def cluster_changed(self) -> None:
        """Follow the leaders."""
        with self._lock:
            state = self._engine.cluster
            self._fetcher.follow(state.topics, state.topic_ids)
            self.cluster_moved = True
            self._tell()

    def closed(self, _error: TailraceError | None) -> None:
        """Nothing more will come: whoever waits is told."""
        with self._lock:
            self._woken = self._over = True
            self._tell()

    def tell_group_moved(self) -> None:
        """There is news of the group. The caller has the lock."""
        self.group_moved = self.loop_ends = True
        self._tell()

    def _fetch(self, plan: FetchPlan) -> None:
        config = self._config
        request = partial(
            Fetch,
            max_wait_ms=config.fetch_max_wait_ms,
            min_bytes=config.fetch_min_bytes,
            max_bytes=config.fetch_max_bytes,
            entries=plan.entries,
            session=plan.session,
            epoch=plan.epoch,
        )
        self._engine.request(
            plan.node,
            request,
            on_reply=partial(self._replied, plan),
            timeout_s=(config.fetch_max_wait_ms + config.request_timeout_ms) / 1000,
            reply_bytes=plan.reply_bytes,
            swift=True,
        )

    def _look_up(self, plan: LookupPlan) -> None:
        request = partial(ListOffsets, queries=plan.queries)
        self._engine.request(plan.node, request, on_reply=partial(self._located, plan))

    def _replied(self, plan: FetchPlan, reply: Reply | TailraceError, frames: Sequence[Frame]) -> None:
        if not isinstance(reply, Fetched):
            self._failed(plan, reply)
            return
        goes_first = False
        with self._lock:
            try:
                size = self._fetcher.replied(plan, reply.results, frames, monotonic())
            except MalformedRequestError as error:
                self._engine.submit(partial(self._failed, plan, error))
                return
            self._trickles = size < LOCAL_PAYLOAD_BYTES_MIN
            if self._fetcher.ready:
                goes_first = self._desk.taken and self._trickles
                if goes_first:
                    self._goes_first = True
                self._tell()
        if goes_first:
            self._back.wait(GOES_FIRST_S)
            self._goes_first = False

    def _located(self, plan: LookupPlan, reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
        if not isinstance(reply, OffsetsListed):
            self._failed(plan, reply)
            return
        with self._lock:
            self._fetcher.located(plan, reply.results, monotonic())
            self.cluster_moved = True  # positions may be known now that are to be stored
            self._tell()

    def _failed(self, plan: FetchPlan | LookupPlan, reply: Reply | TailraceError) -> None:
        error = reply if isinstance(reply, TailraceError) else MalformedRequestError(f"got {reply!r:.200}")
        with self._lock:
            self._fetcher.failed(plan.fetch_id, error, monotonic())
            if self._fetcher.ready:
                self._tell()

    # ----------------------------------------------- in the application's thread

    def wait(self, timeout_s: float | None) -> bool:
        """Until there is something to hand over, or the cluster state has moved on.

        False if `wakeup()` was called; also after `timeout_s`. Ctrl-C interrupts it. Raises
        what has ended the engine.
        """
        self._wait(self._worth_waking, timeout_s, reads=True)
        if self._over:
            self._engine.check()
        return not (self._woken and self.take_woken())

    def ask_ahead(self) -> None:
        """Have the next fetch sent, if this thread has read the reply to the last one, or was ended in that.

        The I/O thread may not know of it. Whoever asks for more and finds nothing must do so before it waits,
        or goes without.
        """
        if self._fetcher.answered or self._desk.unfinished:
            self._engine.wake()

    def wait_for(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Until `condition`, or `deadline` (monotonic seconds).

        Raises what has ended the engine.
        """
        met = self._wait(lambda: self._over or condition(), deadline - monotonic(), reads=False)
        self._engine.check()
        return met

    def wakeup(self) -> None:
        """End the wait or loop that is going on, or else the next one. For any thread, and for handlers.

        By way of the I/O thread: a handler may have interrupted the very thread that has the lock. When
        closed, there is no wait to end.
        """
        with suppress(ClosedError):
            self._engine.submit(self._wake_up)

    def _wake_up(self) -> None:
        with self._lock:
            self._woken = self.loop_ends = True
            self._tell()

    def take_woken(self) -> bool:
        """Was `wakeup` called since the last wait or look? Raises what has ended the engine."""
        if self._over:
            self._engine.check()
        self.loop_ends = False  # who is told of from here on ends a loop again
        woken, self._woken = self._woken, False
        return woken

    def listen(self, news: Callable[[], None] | None) -> None:
        """Call `news` in the thread that has some, whenever a wait would end; at once if it would now."""
        self.ask_ahead()
        with self._lock:
            self._listener = news
            if self._worth_waking():
                self._tell()

    def wake_engine(self) -> None:
        """Fetches may go out now."""
        self._engine.wake()

    def _wait(self, condition: Callable[[], bool], timeout_s: float | None, *, reads: bool) -> bool:
        """Until the condition holds; False if it does not and the time is over.

        `reads`: what trickles in may be read meanwhile. The caller asks for more when it is handed over.
        Signal handlers that come here may wait here, too: it needs no lock, and the wait that was interrupted
        looks again when theirs is over.
        """
        desk = self._desk
        outer, self._waits = self._waits, True
        try:
            until = None if timeout_s is None else monotonic() + timeout_s
            while True:
                desk.taken = waits = timeout_s is None or timeout_s > 0  # first, so that one sees the other
                if condition():
                    desk.taken = False
                    return True
                self.ask_ahead()
                if not waits:
                    return False
                if self._goes_first:
                    self._back.ring()
                desk.wait(timeout_s, reads=reads and self._trickles)
                timeout_s = None if until is None else until - monotonic()
        finally:
            self._waits = outer
            if outer:
                desk.taken = True
                desk.ring()

    def _tell(self) -> None:
        self._desk.ring()
        if self._listener is not None:
            self._listener()

    def _worth_waking(self) -> bool:
        return self._woken or self.cluster_moved or self.group_moved or bool(self._fetcher.ready)
