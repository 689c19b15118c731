"""One record through a handler: what is an attempt of its, and what is not; no processes."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace.consumer.decoding import Decoding
from tailrace.protocol.errors import (
    BufferFullError,
    InvalidArgumentError,
    SerializationError,
    TailraceError,
    WorkerFailedError,
)
from tailrace.protocol.record import Record
from tailrace.workers.board import Board
from tailrace.workers.handling import Handling, StoppedError
from tailrace.workers.items import Item, of_record
from tailrace.workers.progress import Counters
from tailrace.workers.spec import Spec


class Written:
    """Letters that are written down; `failing` is raised by the next result."""

    def __init__(self) -> None:
        self.results: list[tuple[Any, Any]] = []
        self.dead: list[tuple[bytes | None, str]] = []
        self.failing: TailraceError | None = None

    def send_results(self, result: Any, key: Any) -> None:
        if self.failing is not None:
            raise self.failing
        self.results.append((key, result))

    def bury(self, dead: list[tuple[Record[Any, Any], str]]) -> None:
        self.dead += [(record.value, reason) for record, reason in dead]


class Bench:
    """A `Handling` with a handler that fails so many times."""

    def __init__(
        self, board: Board, failures: int, *, dead_letters: bool = True, patient: bool = True
    ) -> None:
        self.calls = 0
        self.failures = failures
        self.error: BaseException = ZeroDivisionError("no luck")
        self.pauses: list[float] = []
        self.letters = Written()
        self.counters = Counters()
        self.patient = patient
        fields: dict[str, Any] = dict.fromkeys(Spec.__dataclass_fields__)
        fields |= {"handler": self.handle, "retries": 2, "retry_backoff_ms": 100}
        spec = Spec(**fields | {"dead_letter_topic": "dead" if dead_letters else None})
        letters: Any = self.letters
        self.handling = Handling(spec, board, 0, letters=letters, counters=self.counters, pause=self.pause)

    def handle(self, record: Record[Any, Any]) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return record.value

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return self.patient


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create(1)
    yield board
    board.close()


def item(value: bytes = b"5") -> Item:
    record = Record("orders", 2, 7, 1_000, b"key", value, ())
    return of_record(record, Decoding(value=int))


def test_attempts_until_one_succeeds(board: Board) -> None:
    bench = Bench(board, failures=2)
    bench.handling.work(item())
    assert bench.letters.results == [(b"key", 5)]
    assert 0.05 <= bench.pauses[0] <= 0.1 <= bench.pauses[1] <= 0.2
    counters = bench.counters
    assert (counters.records, counters.errors, counters.retries, counters.dead_letters) == (1, 2, 2, 0)
    assert board.in_hand(0) is None


def test_a_record_that_cannot_be_done_is_a_dead_letter_with_its_bytes(board: Board) -> None:
    bench = Bench(board, failures=9)
    bench.handling.work(item())
    assert bench.calls == 3
    ((value, reason),) = bench.letters.dead
    assert value == b"5"
    assert reason.startswith("ZeroDivisionError: no luck (")
    assert (bench.counters.records, bench.counters.dead_letters) == (1, 1)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("mine"), asyncio.CancelledError()])
def test_what_ends_programs_is_a_failure_like_others(board: Board, error: BaseException) -> None:
    bench = Bench(board, failures=2)
    bench.error = error
    bench.handling.work(item())
    assert bench.letters.results == [(b"key", 5)]
    assert (bench.counters.errors, board.in_hand(0)) == (2, None)


class SilentError(Exception):
    def __str__(self) -> str:
        raise AttributeError("mesage")


def test_an_error_that_cannot_be_told_is_a_failure_like_others(board: Board) -> None:
    bench = Bench(board, failures=9)
    bench.error = SilentError()
    bench.handling.work(item())
    ((_, reason),) = bench.letters.dead
    assert reason.startswith("SilentError: (its text cannot be made: AttributeError) (")


def test_without_a_topic_for_them_it_ends(board: Board) -> None:
    bench = Bench(board, failures=9, dead_letters=False)
    with pytest.raises(WorkerFailedError, match="orders-2 offset 7: ZeroDivisionError: no luck"):
        bench.handling.work(item())
    with pytest.raises(WorkerFailedError, match="does not deserialize"):
        bench.handling.work(item(b"five"))
    assert bench.counters.records == 0


def test_who_is_to_stop_does_not_try_again(board: Board) -> None:
    bench = Bench(board, failures=9, patient=False)
    with pytest.raises(StoppedError):
        bench.handling.work(item())
    assert (bench.calls, bench.counters.records, bench.letters.dead) == (1, 0, [])


def test_what_does_not_deserialize_never_reaches_the_handler(board: Board) -> None:
    bench = Bench(board, failures=0)
    bench.handling.work(item(b"five"))
    assert bench.calls == 0
    assert [value for value, _ in bench.letters.dead] == [b"five"]


def test_a_poisoned_record_never_reaches_the_handler(board: Board) -> None:
    bench = Bench(board, failures=0)
    board.poison({item().place})
    bench.handling.work(item())
    assert bench.calls == 0
    assert bench.letters.dead == [(b"5", "3 workers died while they had it in hand")]


@pytest.mark.parametrize("error", [InvalidArgumentError("no bytes"), SerializationError("no JSON")])
def test_a_result_that_cannot_be_a_record_is_the_handlers_failure(board: Board, error: TailraceError) -> None:
    bench = Bench(board, failures=0)
    bench.letters.failing = error
    bench.handling.work(item())
    assert bench.calls == 3
    assert len(bench.letters.dead) == 1


def test_a_result_that_cannot_be_sent_is_not(board: Board) -> None:
    bench = Bench(board, failures=0)
    bench.letters.failing = BufferFullError("the cluster is slow")
    with pytest.raises(BufferFullError):
        bench.handling.work(item())
    assert (bench.calls, bench.counters.errors, bench.letters.dead) == (1, 0, [])
