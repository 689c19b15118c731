"""The end of a consumer that nobody has any more and nobody has closed, in its I/O thread."""

from collections.abc import Sequence

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.pending import Frame
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import Reply

from .group.task import LEAVE_WITHIN_S, GroupTask
from .local.store import LocalStore
from .one_thread import NOBODY, OneThread


class Forgotten:
    """A `tailrace.client.engine.Task`: after `forget` it leaves the group, then ends the engine.

    Nothing is stored: whether the application was done with what it got, nobody can say any more. What the
    I/O thread knows must not lead to the `Session`, which may know the consumer by way of a listener.
    """

    def __init__(
        self, engine: Engine, group: GroupTask | None, store: LocalStore | None, one_thread: OneThread
    ) -> None:
        self._engine = engine
        self._group = group
        self._store = store
        self._one_thread = one_thread
        self._forgotten = False
        self._leaving = False

    def forget(self) -> None:
        """The consumer is gone. Any thread, also within a garbage collection: it takes no lock."""
        self._forgotten = True
        self._engine.wake()

    def step(self, now: float) -> float | None:
        """Say goodbye, once."""
        if self._forgotten and not self._leaving:
            self._leaving = True
            leave = None if self._group is None else self._group.end()
            if leave is None:
                self._end()
            else:
                self._engine.request(COORDINATOR, leave, on_reply=self._left, timeout_s=LEAVE_WITHIN_S)
        return None

    def cluster_changed(self) -> None:
        """Nothing depends on it."""

    def closed(self, _error: TailraceError | None) -> None:
        """Nothing is resolved here."""

    def _left(self, _reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
        self._end()  # if it was not heard, the group notices that heartbeats stay away

    def _end(self) -> None:
        # What is left of a call, in a thread of an AsyncConsumer's, may still use the store.
        if self._store is not None and self._one_thread.inside == NOBODY:
            self._store.close()
        self._engine.close()
