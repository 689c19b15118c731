"""A consumer that is made in a thread of its own, and may be given up before it is there."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tailrace.client.engine import Engine
from tailrace.protocol.errors import ClosedError, TailraceError

from .consumer import Consumer


class Making:
    """One attempt. `make` waits for the cluster; `give_up`, in another thread, ends that."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        """Made for a consumer that is not there yet."""
        self._given_up = False

    def make(self, *topics: str, **options: Any) -> Consumer:
        """The consumer. Raises like its constructor, and ClosedError when it was given up."""
        consumer = _Telling(self._told, *topics, **options)
        if not self._given_up:
            self._engine = None  # not a call from the look on: it is there, or given up
            return consumer
        with suppress(TailraceError):
            consumer._session.close(failed=True)
        raise _given_up()

    def give_up(self) -> None:
        """Nobody waits for it any more. Does nothing when it is there."""
        self._given_up = True
        engine = self._engine
        if engine is not None:
            engine.give_up()

    def _told(self, engine: Engine) -> None:
        self._engine = engine
        if self._given_up:
            raise _given_up()


class _Telling(Consumer):
    """Tells of its engine before that is used."""

    def __init__(self, told: Callable[[Engine], None], *topics: str, **options: Any) -> None:
        new_engine = self._open

        def tell(*arguments: Any, **settings: Any) -> Engine:
            engine = new_engine(*arguments, **settings)
            told(engine)
            return engine

        self._open = tell
        try:
            super().__init__(*topics, **options)
        finally:
            del self._open  # it knows who would know the consumer


def _given_up() -> ClosedError:
    return ClosedError("the consumer was given up before it was there: start() was cancelled")
