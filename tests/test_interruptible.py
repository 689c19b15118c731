"""What a signal handler raises passes by no `with`, no `finally` and no `except BaseException`.

Handlers run at calls and where a loop jumps back. CPython 3.12 and 3.13 compile a loop that ends in a
condition to a jump back that lies in no exception table. What is raised there by 3.13 leaves the lock of the
`with` around the loop locked for ever. Such a loop is to end in a plain statement, or to be a function of
its own, whose call is in the table.
"""

import ast
import ctypes
import dis
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import CodeType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    path
    for package in ("tailrace", "producer", "consumer")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "while " in path.read_text() or "for " in path.read_text()
]


def unguarded(source: str) -> list[int]:
    """The lines of loops in guarded blocks that jump back outside of every exception table."""
    blocks = list(guarded(ast.parse(source)))
    return sorted(
        {
            line
            for code in functions(compile(source, "<module>", "exec"))
            for line in bare_jumps(code)
            if any(code.co_firstlineno < first <= line <= last for first, last in blocks)
        }
    )


def guarded(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """First and last line of each block that something must follow."""
    for node in ast.walk(tree):
        for block in blocks_of(node):
            yield block[0].lineno, block[-1].end_lineno or 0


def blocks_of(node: ast.AST) -> Iterator[list[ast.stmt]]:
    if isinstance(node, ast.With | ast.AsyncWith):
        yield node.body
    elif isinstance(node, ast.Try | ast.TryStar):
        if node.finalbody or any(catches_all(handler) for handler in node.handlers):
            yield node.body
        if node.finalbody:
            yield from (handler.body for handler in node.handlers)
            if node.orelse:
                yield node.orelse


def catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or "BaseException" in ast.unparse(handler.type)


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def bare_jumps(code: CodeType) -> Iterator[int]:
    """Lines of jumps back for which no exception handler is entered."""
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    for at in dis.get_instructions(code):
        line = at.positions.lineno if at.positions else None
        covered = any(entry.start <= at.offset < entry.end for entry in table)
        if at.opname == "JUMP_BACKWARD" and line and not covered:
            yield line


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loop_jumps_back_past_what_must_follow(path: Path) -> None:
    assert unguarded(path.read_text()) == []


LOOPS = {
    "a condition": """
    with lock:
        for thing in things:
            if thing:
                break
""",
    "conditions": """
    with lock:
        while things and not things.pop():
            pass
""",
    "a statement": """
    with lock:
        while True:
            falls = bool(things[0])
""",
}


class HandlerError(Exception):
    """What the handler raises."""


class Thing:
    """A signal comes while it is looked at, with no call after it but the jump back."""

    come = property(ctypes.PyDLL(None).PyErr_SetInterruptEx)
    _as_parameter_ = int(signal.SIGUSR1)

    def __bool__(self) -> bool:
        self.come  # noqa: B018
        return False


@pytest.mark.parametrize("ends_in", LOOPS)
def test_where_a_lock_stays_locked_is_found(ends_in: str) -> None:
    source = f"def loop(lock, things):\n{LOOPS[ends_in]}"
    names: dict[str, Any] = {}
    exec(source, names)
    lock = Lock()

    def raises(_number: int, _frame: object) -> None:
        raise HandlerError

    before = signal.signal(signal.SIGUSR1, raises)
    try:
        with pytest.raises(HandlerError):
            names["loop"](lock, [Thing()])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert unguarded(source) or not lock.locked()
