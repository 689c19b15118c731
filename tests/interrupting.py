"""Signals whose handlers raise, at every point of a call where the interpreter lets them run."""

import _weakrefset
import ctypes
import dis
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, Final

from tailrace.client.signals import HARMLESS

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = tuple(f"{ROOT / name}/" for name in ("consumer", "producer", "tailrace"))
QUIET: Final = {
    "CACHE", "COPY", "LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL", "NOP", "POP_TOP", "PRECALL", "PUSH_NULL",
    "STORE_FAST", "SWAP",
}  # fmt: skip
"""Instructions that call nothing, and are followed by one that may: it is enough to look at that."""


class InterruptionError(Exception):
    """What the handler raises: an Exception, as the TimeoutError that those of SIGALRM raise is one."""


class Interrupts:
    """A signal comes just before an instruction; its handler runs where the interpreter looks next.

    That is at calls, at the beginning of functions and of further rounds of loops: so many points, the same
    each time, of which a timer finds a few, and others each time. Counted are those of the code under test;
    `points` are the first at which a signal comes, and how far the next is from there.
    """

    def __init__(self, *points: int) -> None:
        self._left, *self._further = points
        self.places: list[str] = []
        """Where handlers have raised."""

    @property
    def over(self) -> bool:
        """Was there no such point any more?"""
        return self._left > 0

    # What makes the signal pending must be no call: handlers run after one.
    _come = property(ctypes.PyDLL(None).PyErr_SetInterruptEx)
    _as_parameter_ = int(signal.SIGUSR1)

    def watch(self) -> None:
        """Count from now on what this thread comes to."""
        watch(self._reached)

    def _reached(self) -> None:
        """A function begins or goes on, or an instruction comes next."""
        self._left -= 1
        if self._left == 0:
            unwatch()
            self._come  # noqa: B018

    def handle(self, _number: int, at: FrameType | None) -> None:
        """Raise; unless the call has just returned, or Python would swallow it (as in `__del__`)."""
        frame = at
        while frame is not None and not is_ours(frame.f_code):
            frame = frame.f_back
        if frame is None or at is None or at.f_code.co_filename == _weakrefset.__file__:
            return
        if frame.f_code.co_name == "__del__":
            return
        self.places.append(f"{Path(at.f_code.co_filename).name}:{at.f_lineno} {at.f_code.co_name}")
        if self._further:
            self._left = self._further.pop(0)
            self.watch()
        raise InterruptionError


def is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGES)


@cache
def points_of(code: CodeType) -> frozenset[int]:
    return frozenset(at.offset for at in dis.get_instructions(code) if at.opname not in QUIET)


if sys.version_info < (3, 12):

    def watch(reached: Callable[[], None]) -> None:
        """Have it called at each point that this thread comes to, in functions that begin from now on."""

        def begin(frame: FrameType, _event: str, _argument: Any) -> Any:
            if not is_ours(frame.f_code):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            reached()
            return step

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "opcode" and frame.f_lasti in points_of(frame.f_code):
                reached()
            return step

        sys.settrace(begin)

    def unwatch() -> None:
        sys.settrace(None)

else:  # where not all instructions are traced any more
    MONITORING: Final = sys.monitoring
    BEGINS: Final = MONITORING.events.PY_START | MONITORING.events.PY_RESUME
    COMES: Final = MONITORING.events.INSTRUCTION
    TOOL: Final = 4
    WATCHED: Final[set[CodeType]] = set()
    """Whose instructions are told of: they run at a third of their speed."""

    def watch(reached: Callable[[], None]) -> None:
        """Have it called at each point that this thread comes to, in functions that begin from now on."""
        thread = get_ident()

        def begin(code: CodeType, _offset: int) -> Any:
            if not is_ours(code):
                return MONITORING.DISABLE
            if get_ident() == thread:
                MONITORING.set_local_events(TOOL, code, COMES)
                WATCHED.add(code)
                reached()
            return None

        def step(code: CodeType, offset: int) -> None:
            if get_ident() == thread and offset in points_of(code):
                reached()

        MONITORING.use_tool_id(TOOL, "interrupts")
        MONITORING.register_callback(TOOL, MONITORING.events.PY_START, begin)
        MONITORING.register_callback(TOOL, MONITORING.events.PY_RESUME, begin)
        MONITORING.register_callback(TOOL, COMES, step)
        MONITORING.set_events(TOOL, BEGINS)

    def unwatch() -> None:
        if MONITORING.get_tool(TOOL) is None:
            return
        MONITORING.set_events(TOOL, 0)
        while WATCHED:
            MONITORING.set_local_events(TOOL, WATCHED.pop(), 0)
        MONITORING.register_callback(TOOL, COMES, None)
        MONITORING.free_tool_id(TOOL)


@contextmanager
def interrupted_at(*points: int) -> Iterator[Interrupts]:
    """Calls in the block are interrupted at these points. Only in the main thread."""
    interrupts = Interrupts(*points)
    with _at(interrupts, interrupts.handle, calls_back=False):  # as that of Ctrl-C, which only raises
        yield interrupts


@contextmanager
def handled_at(point: int, handler: Callable[[], object], *, calls_back: bool) -> Iterator[Interrupts]:
    """Calls in the block are interrupted at this point, by a handler that raises nothing.

    `calls_back`: is it taken for what it is? If not, it stands for a finalizer, of which nobody knows.
    """
    interrupts = Interrupts(point)

    def handle(_number: int, _frame: FrameType | None) -> None:
        handler()

    with _at(interrupts, handle, calls_back=calls_back):
        yield interrupts


@contextmanager
def _at(
    interrupts: Interrupts, handle: Callable[[int, FrameType | None], object], *, calls_back: bool
) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handle)
    if not calls_back:
        HARMLESS.add(handle)
    gc.disable()  # what is raised in a finalizer Python drops
    try:
        interrupts.watch()
        yield
    finally:
        unwatch()
        gc.enable()
        HARMLESS.discard(handle)
        signal.signal(signal.SIGUSR1, before)
