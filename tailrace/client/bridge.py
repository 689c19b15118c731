"""Between one asyncio loop and a client's threads: news come into the loop, waiting calls go out of it.

The I/O thread `ring`s once for all that it has at a time, however many tasks it wakes. Calls that may
wait run in threads of the client's own (`run`); nothing here makes a task.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from queue import SimpleQueue
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from tailrace.protocol.errors import ClosedError, ConcurrentUseError

from .notice import TOLD_AFTER_S, Notice

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", covariant=True)

_Job = Callable[[], object]
_server: ContextVar[tuple["Bridge", "SimpleQueue[_Job | None]"] | None] = ContextVar("_server", default=None)
"""Within a coroutine that a call waits for: where further calls are run meanwhile."""


class Bridge:
    """One client's. `name` begins its error messages; at most `threads` calls run at once, others queue.

    It belongs to the loop that is running when it is used first. Not for several loops.
    """

    def __init__(self, name: str, *, threads: int) -> None:
        self._name = name
        self._threads: Final = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False
        self._rung = False
        self._actions: deque[_Job] = deque()

    def enter(self) -> asyncio.AbstractEventLoop:
        """The loop. Raises ConcurrentUseError in another than the first, RuntimeError outside of any.

        In a fork of the process there is another or none: ClosedError.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._check_process()
            raise
        if self._loop is None:
            self._loop = loop
            self._process = os.getpid()
        elif self._loop is not loop:
            self._check_process()
            raise ConcurrentUseError(
                f"{self._name} belongs to the asyncio loop that it was used in first, and this is another: "
                "make a client in each loop"
            )
        return loop

    # ------------------------------------------------------------ into the loop

    def ring(self, action: _Job) -> None:
        """From any thread: have the loop call `action` soon, together with all that others have by then."""
        self._actions.append(action)
        if not self._rung:
            self._rung = True
            assert self._loop is not None, "nobody waits before there is a loop"
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the loop is closed: nobody is left to hear of it
                self._rung = False
                self._actions.clear()

    def _answer(self) -> None:
        self._rung = False
        while self._actions:
            self._actions.popleft()()

    # -------------------------------------------------------------- out of it

    def start(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> "asyncio.Future[T]":
        """Have a thread call `function`. A cancelled call that has not begun never does.

        One that has begun goes on, and what it gives is dropped. Within a coroutine that a call of this
        very client waits for (`call_back`) the thread of that call does it.
        """
        loop = self.enter()
        call = partial(function, *arguments, **options)
        server = _server.get()
        if server is not None and server[0] is self:
            return self._served(loop, server[1], call)
        if self._closed:
            raise ClosedError(f"{self._name} is closed")
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix=f"{self._name}-call")
        return loop.run_in_executor(self._executor, call)

    async def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """As `start`, and wait."""
        return await self.start(function, *arguments, **options)

    @contextmanager
    def telling(self, notice: Notice) -> Iterator[None]:
        """While a task waits here: have a thread look whether it is to be told what for."""
        loop = self.enter()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            if not self._closed:
                self.start(notice.look)
                timer = loop.call_later(TOLD_AFTER_S, look)

        timer = loop.call_later(TOLD_AFTER_S, look)
        try:
            yield
        finally:
            timer.cancel()

    @property
    def within_call(self) -> bool:
        """Is this a coroutine that a call of this very client waits for?"""
        server = _server.get()
        return server is not None and server[0] is self

    def call_back(self, coroutine: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """In a thread of a call: have the loop run a coroutine, and wait; do what it asks for meanwhile."""
        assert self._loop is not None
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        token = _server.set((self, jobs))
        try:
            done = asyncio.run_coroutine_threadsafe(coroutine(), self._loop)
        finally:
            _server.reset(token)
        done.add_done_callback(lambda _: jobs.put(None))
        while (job := jobs.get()) is not None:
            job()
        done.result()

    @property
    def closed(self) -> bool:
        """Are no more calls taken? In a fork of the process there is nothing to be closed either."""
        return self._closed or self.forked

    @property
    def forked(self) -> bool:
        """Is this process a fork of the one that the client was used in?"""
        return self._process != os.getpid()

    def close(self) -> None:
        """No more calls are taken; one that is running ends by itself."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _check_process(self) -> None:
        if self.forked:
            raise ClosedError(
                f"this {self._name} was made before fork() and belongs to process {self._process}; "
                "make a new one here, in a loop of its own"
            )

    def _served(
        self, loop: asyncio.AbstractEventLoop, jobs: "SimpleQueue[_Job | None]", call: Callable[[], T]
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                self.ring(partial(_fail, future, error))
            else:
                self.ring(partial(_resolve, future, result))

        jobs.put(job)
        return future


def _resolve(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class _Twin(Protocol[C]):
    """An asyncio client, and the client that it is made of."""

    @property
    def _sync(self) -> C: ...

    async def _run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T: ...


def twin(
    method: Callable[Concatenate[C, P], T],
) -> Callable[Concatenate[_Twin[C], P], Coroutine[Any, Any, T]]:
    """The coroutine method that does the same as a method of the client underneath, in a thread."""

    @wraps(method)
    async def coroutine(self: _Twin[C], /, *arguments: P.args, **options: P.kwargs) -> T:
        return await self._run(method, self._sync, *arguments, **options)

    return coroutine
