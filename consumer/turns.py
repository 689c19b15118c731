"""Who may touch what is behind an `AsyncConsumer`: the loop, or a call in a thread, one after the other."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from tailrace.client.bridge import Bridge

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """One consumer's. Belongs to the loop.

    A coroutine that a call waits for (of a listener) needs no turn: what it asks for is part of that call,
    and done in its thread.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.lock = asyncio.Lock()
        """Held while something touches the consumer, in whatever thread."""
        self.abandoned = False
        """Does a call go on whose task was cancelled?"""

    @property
    def within_call(self) -> bool:
        """Is this a coroutine that a call waits for?"""
        return self._bridge.within_call

    async def in_thread(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call it when it is its turn. If the task is cancelled, its turn still lasts until the call ends."""
        call = await self.begin(function, *arguments, **options)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            self.abandoned |= not (call.done() or self._bridge.within_call)
            raise

    async def none_abandoned(self, timeout_s: float) -> bool:
        """Wait for a call whose task was cancelled; False if it goes on after so long."""
        if self.abandoned:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s), self.lock:
                    pass
        return not self.abandoned

    async def begin(
        self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> "asyncio.Future[T]":
        """As `in_thread`; returns when it is its turn, and nothing stops it any more."""
        if self._bridge.within_call:
            return self._bridge.start(function, *arguments, **options)
        await self.lock.acquire()
        try:
            call = self._bridge.start(function, *arguments, **options)
        except BaseException:
            self.lock.release()
            raise
        call.add_done_callback(self._end_turn)
        return call

    async def at_once(self, action: Callable[[], T]) -> T:
        """Do what does not wait, in the loop when it is its turn."""
        if self._bridge.within_call:
            return await self._bridge.run(action)
        async with self.lock:
            return action()

    async def surely(self, action: Callable[[], None]) -> None:
        """As `at_once`, and also if the task is cancelled meanwhile; that is raised then."""
        if self._bridge.within_call:
            await self._bridge.run(action)
            return
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await self.lock.acquire()
                break
            except asyncio.CancelledError as error:
                cancelled = error
        try:
            action()
        finally:
            self.lock.release()
        if cancelled is not None:
            raise cancelled

    def _end_turn(self, call: "asyncio.Future[Any]") -> None:
        self.lock.release()
        self.abandoned = False
        if not call.cancelled():
            call.exception()  # known, also if nobody waits for it any more
