"""Memory for batches: nobody shares it, and what is given back is used again, up to a bound."""

import pytest

from tailrace.producer.batch import Batch
from tailrace.producer.delivery import Outcome
from tailrace.producer.encoder import FREE_BYTES_MAX, Encoder, Rooms
from tailrace.protocol.errors import BatchTooLargeError, ConcurrentUseError


def test_what_was_given_back_last_is_used_first() -> None:
    rooms = Rooms(1_000)
    first, second = rooms.take(), rooms.take()
    assert len(first) == len(second) == 1_000
    assert first.obj is not second.obj
    rooms.give(first)
    rooms.give(second)
    assert rooms.take() is second
    assert rooms.take() is first
    third = rooms.take()
    assert third is not first
    assert third is not second


def test_no_more_is_kept_than_the_bound() -> None:
    size = FREE_BYTES_MAX // 4
    rooms = Rooms(size)
    taken = [rooms.take() for _ in range(6)]
    for room in taken:
        rooms.give(room)
    again = [rooms.take() for _ in range(6)]
    assert [any(room is old for old in taken) for room in again] == [True] * 4 + [False] * 2


def test_what_a_signal_handler_raises_meanwhile_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(Outcome("t", 0), bytes(16), 0, 0.0, 1.0)
    encoder = Encoder(1_000, compresses=False)

    def encode(*_: object) -> None:
        raise errors.pop()

    errors = [ConcurrentUseError("in the middle of a send"), BatchTooLargeError("the I/O thread tells")]
    monkeypatch.setattr(Batch, "encode", encode)
    encoder.encode_early(batch, 0)
    with pytest.raises(ConcurrentUseError):
        encoder.encode_early(batch, 0)
