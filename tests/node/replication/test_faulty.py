"""What becomes of a faulty log, step by step."""

from math import inf
from types import SimpleNamespace
from typing import Any

from tailrace.node.replication.faulty import FaultyLogs

KEY = (bytes(16), 0)


def log(*, sole: bool = False) -> Any:
    return SimpleNamespace(key=KEY, sole_replica=sole)


def test_it_is_asked_for_until_it_is_out_and_over_once_there_is_another() -> None:
    faulty, first, second = FaultyLogs(), log(), log()
    assert faulty.next_tick() == inf
    assert faulty.found(first)
    assert not faulty.found(first)
    assert faulty.holds(first)
    assert faulty.next_tick() == -inf
    assert faulty.ask(1.0) == [KEY]
    assert (faulty.ask(2.0), faulty.next_tick()) == ([], inf)
    faulty.answered(KEY, out=False, ask_at=3.0)
    assert (faulty.ask(2.9), faulty.next_tick()) == ([], 3.0)
    assert faulty.ask(3.0) == [KEY]
    assert faulty.out == set()
    faulty.answered(KEY, out=True, ask_at=inf)
    assert faulty.out == {KEY}
    faulty.renewed([KEY])
    assert (faulty.out, faulty.ask(9.0), faulty.holds(first)) == (set(), [], True)
    assert not faulty.holds(second)
    assert not faulty.holds(first)
    assert faulty.found(second)


def test_a_sole_replica_stays_as_it_is() -> None:
    faulty = FaultyLogs()
    assert not faulty.found(log(sole=True))
    assert faulty.ask(1.0) == []
