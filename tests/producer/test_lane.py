"""Each rule of a lane, one at a time, against a node that deduplicates."""

from random import Random

import pytest

from tailrace.client.retry import Backoff
from tailrace.producer.batch import SEQUENCES, UNSTAMPED, Batch, Identity, Stamp, advance
from tailrace.producer.lane import Lane, Resolved
from tailrace.protocol.errors import (
    BusyError,
    ConnectionFailedError,
    ErrorCode,
    FencedProducerError,
    InvalidTimestampError,
    NotCommittedError,
    OutOfOrderSequenceError,
    TailraceError,
    TimedOutError,
    UnknownProducerIdError,
    UnknownTopicError,
    error_from,
)
from tailrace.protocol.limits import IN_FLIGHT_BATCHES_MAX, PRODUCER_WINDOW_BATCHES

from .model import DELIVERY_TIMEOUT_S, Copy, Log, sealed

FIRST = Identity(7, 0)
SECOND = Identity(7, 1)
LATER = 60.0
"""Longer than any pause, shorter than the delivery timeout."""


class World:
    """One lane that leads to one log. Batches are numbered as they are sent: `batches[0]` is the first."""

    def __init__(self, *, idempotent: bool = True) -> None:
        self.now = 1000.0
        self.resolved: list[Resolved] = []
        self.lane = Lane(
            bytes(16), 0, idempotent=idempotent, backoff=Backoff(Random(1)), resolved=self.resolved
        )
        self.lane.lead(1, 0, self.now)
        if idempotent:
            self.lane.adopt(FIRST)
        self.log = Log()
        self.batches: list[Batch] = []

    def send(self, count: int, records: int = 2) -> list[Batch]:
        """Add batches and send what may be sent."""
        for _ in range(count):
            self.batches.append(sealed(0, records, self.now))
            self.lane.add(self.batches[-1])
        return self.take()

    def take(self) -> list[Batch]:
        """Everything that may be sent now, in flight from now on."""
        taken = []
        while self.lane.waiting and self.lane.free(self.now):
            taken.append(self.lane.take())
        return taken

    def store(self, *batches: Batch) -> None:
        """The node gets these; the lane does not hear of it."""
        for batch in batches:
            self.log.append(Copy(batch))

    def answer(self, *batches: Batch) -> None:
        """The node gets these and answers."""
        for batch in batches:
            result = self.log.append(Copy(batch))
            if result.error.code == ErrorCode.NONE:
                self.lane.stored(batch, result.base_offset, self.now)
            else:
                self.lane.failed(batch, error_from(result.error.code, result.error.message), self.now)

    def fail(self, error: TailraceError, *batches: Batch) -> None:
        for batch in batches:
            self.lane.failed(batch, error, self.now)

    def fates(self) -> dict[Batch, TailraceError | None]:
        """What the application was told."""
        return {resolved.batch: resolved.error for resolved in self.resolved}


def test_batches_are_numbered_by_their_records() -> None:
    world = World()
    sent = world.send(3, records=5)
    assert [batch.stamp.sequence for batch in sent] == [0, 5, 10]
    assert {batch.stamp.identity for batch in sent} == {FIRST}


def test_sequences_wrap_after_int32() -> None:
    assert advance(SEQUENCES - 1, 1) == 0
    assert advance(2**31 - 3, 5) == 2
    assert advance(0, 1_000_000) == 1_000_000


def test_no_more_than_the_bound_is_in_flight() -> None:
    world = World()
    assert len(world.send(IN_FLIGHT_BATCHES_MAX + 5)) == IN_FLIGHT_BATCHES_MAX
    assert not world.lane.free(world.now)
    world.answer(world.batches[0])
    assert world.take() == [world.batches[IN_FLIGHT_BATCHES_MAX]]


def test_the_oldest_in_flight_stays_in_what_the_node_remembers() -> None:
    """Answers may overtake each other: one of acks=all waits for each partition of its request."""
    world = World()
    first, *others = world.send(1) + world.send(3 * PRODUCER_WINDOW_BATCHES)
    world.store(first)
    while others:
        world.answer(*others)
        others = world.take()
    assert world.lane.waiting
    assert not world.lane.free(world.now)
    world.fail(TimedOutError("no answer"), first)
    world.now += LATER
    while sent := world.take():
        world.answer(*sent)
    assert world.log.batches == world.batches
    assert {resolved.batch: resolved.base_offset for resolved in world.resolved} == world.log.offsets


def test_what_the_node_does_not_remember_is_stored_if_a_later_one_is() -> None:
    world = World()
    first, second, third = world.send(3)
    world.store(first, second)
    world.answer(third)
    world.log.windows[FIRST.producer_id].entries.popleft()
    world.fail(TimedOutError("no answer"), first, second)
    world.now += LATER
    world.answer(*world.take())
    assert [(batch, offset, error) for batch, offset, error in world.resolved] == [
        (third, 4, None), (second, 2, None), (first, -1, None),
    ]  # fmt: skip
    world.now += LATER
    assert world.send(1) == world.batches[3:]


def test_after_a_failure_nothing_is_sent_until_all_is_answered_and_then_in_order_after_a_pause() -> None:
    world = World()
    first, second, third = world.send(3)
    world.fail(BusyError("full"), first)
    assert world.send(1) == []
    world.answer(second, third)  # refused: the first is missing
    assert world.take() == []
    assert world.lane.identity == FIRST
    assert world.now < world.lane.not_before < world.now + 1
    world.now = world.lane.not_before
    assert world.take() == world.batches
    world.answer(*world.batches)
    assert world.log.batches == world.batches
    assert set(world.fates().values()) == {None}


def test_a_lost_answer_is_asked_for_again_under_the_same_numbers() -> None:
    world = World()
    sent = world.send(3)
    world.store(*sent)
    world.fail(ConnectionFailedError("lost"), *sent)
    world.now += LATER
    assert [batch.stamp.sequence for batch in world.take()] == [0, 2, 4]
    world.answer(*sent)
    assert world.log.batches == sent
    assert [resolved.base_offset for resolved in world.resolved] == [0, 2, 4]


def given_up_in_doubt(world: World, error: TailraceError) -> tuple[Batch, Batch]:
    """Two batches fail with the error, though the first is stored; it expires, and the second waits."""
    (first,) = world.send(1)
    world.now += LATER
    (second,) = world.send(1)
    world.store(first)
    world.fail(error, first, second)
    world.now = first.deadline
    world.lane.expire(world.now)
    assert "perhaps stored" in str(world.fates()[first])
    return first, second


def test_what_was_appended_and_is_not_known_to_be_committed_keeps_its_numbers() -> None:
    """Else the second would be taken for the first, which is stored, and be lost itself."""
    world = World()
    first, second = given_up_in_doubt(world, NotCommittedError("not led here any more"))
    world.answer(*world.take())
    assert world.log.batches == [first, second]
    assert world.fates()[second] is None


def test_a_batch_refused_for_good_leaves_no_gap() -> None:
    world = World()
    first, second, third = world.send(3)
    world.answer(first)
    world.fail(InvalidTimestampError("in the future"), second)
    world.answer(third)
    world.now += LATER
    assert world.take() == [third]
    assert third.stamp == Stamp(FIRST, 2)
    world.answer(third)
    assert world.log.batches == [first, third]
    assert isinstance(world.fates()[second], InvalidTimestampError)


def test_a_hole_is_closed_by_the_batch_behind_it() -> None:
    """The first is given up in doubt; the second is taken, so the first must be stored too."""
    world = World()
    _, second = given_up_in_doubt(world, ConnectionFailedError("lost"))
    world.batches.append(sealed(0, 1, world.now))
    world.lane.add(world.batches[-1])
    assert world.take() == [second]  # the third must wait for what this brings
    world.answer(second)
    assert world.take() == world.batches[2:]
    assert world.batches[2].stamp.identity == FIRST
    world.answer(world.batches[2])
    assert world.log.batches == world.batches


def test_behind_a_hole_there_is_no_place_for_what_is_new() -> None:
    world = World()
    _, second = given_up_in_doubt(world, ConnectionFailedError("lost"))
    assert world.take() == [second]
    assert not world.lane.free(world.now)
    world.answer(second)
    assert world.lane.free(world.now)


def test_a_hole_that_is_not_stored_fails_what_is_in_doubt_and_begins_anew() -> None:
    """What is in doubt must not be sent under other numbers: the old connection may bring it yet."""
    world = World()
    (first,) = world.send(1)
    world.now += LATER
    (second,) = world.send(1)
    world.fail(ConnectionFailedError("lost"), first, second)
    world.now = first.deadline
    world.lane.expire(world.now)
    assert world.send(1) == [second]
    world.answer(second)
    assert isinstance(world.fates()[second], OutOfOrderSequenceError | UnknownProducerIdError)
    assert "may or may not be stored" in str(world.fates()[second])
    assert world.lane.starving()
    assert world.lane.spent == FIRST
    world.store(first, second)  # the old connection's, late
    world.lane.adopt(SECOND)
    world.now = world.lane.not_before
    (third,) = world.take()
    assert third.stamp == Stamp(SECOND, 0)
    world.answer(third)
    world.store(second)  # and later still: fenced
    assert world.log.batches == [first, second, third]


def test_a_hole_with_nothing_behind_it_begins_anew() -> None:
    world = World()
    (first,) = world.send(1)
    world.fail(ConnectionFailedError("lost"), first)
    world.now = first.deadline
    world.lane.expire(world.now)
    assert world.send(1) == []
    assert world.lane.starving()


def test_a_batch_in_doubt_behind_a_refused_one_is_not_renumbered() -> None:
    world = World()
    first, second = world.send(2)
    world.fail(InvalidTimestampError("in the future"), first)
    world.fail(ConnectionFailedError("lost"), second)
    world.now += LATER
    assert world.send(1) == [second]
    assert second.stamp.sequence == 2
    world.answer(second)
    assert isinstance(world.fates()[second], OutOfOrderSequenceError | UnknownProducerIdError)
    assert world.lane.starving()


def test_an_answer_to_an_older_batch_does_not_close_a_hole() -> None:
    world = World()
    first, second = world.send(2)
    world.now = first.deadline
    world.lane.expire(world.now)
    world.fail(TimedOutError("no answer"), second)
    world.answer(first)
    assert world.send(1) == []
    assert world.lane.starving()


def test_a_node_that_lost_what_it_acknowledged_gets_a_new_epoch() -> None:
    """Power loss under `flush: relaxed`: it expects an older sequence. The batch is surely not stored."""
    world = World()
    world.answer(*world.send(2))
    world.log.lose_tail(1)
    (third,) = world.send(1)
    world.answer(third)
    assert world.lane.starving()
    world.now += LATER
    world.lane.adopt(SECOND)
    assert world.take() == [third]
    assert third.stamp == Stamp(SECOND, 0)
    world.answer(third)
    assert world.log.batches == [world.batches[0], third]
    assert world.fates()[third] is None


def test_a_producer_that_the_node_forgot_gets_a_new_epoch() -> None:
    world = World()
    world.answer(*world.send(2))
    world.log.windows.clear()
    sent = world.send(2)
    world.answer(*sent)
    world.now += LATER
    world.lane.adopt(SECOND)
    assert world.take() == sent
    world.answer(*sent)
    assert world.log.batches == world.batches


def test_what_was_in_doubt_when_the_node_forgot_fails() -> None:
    world = World()
    world.answer(*world.send(1))
    (second,) = world.send(1)
    world.fail(ConnectionFailedError("lost"), second)
    world.now += LATER
    world.take()
    world.log.windows.clear()
    world.answer(second)
    assert isinstance(world.fates()[second], UnknownProducerIdError)
    assert "may or may not be stored" in str(world.fates()[second])


def test_what_a_later_answer_proves_stored_is_never_sent_anew() -> None:
    """The first times out, the second is acknowledged; then the node forgets. The first is stored."""
    world = World()
    first, second = world.send(2)
    world.store(first)
    world.fail(TimedOutError("no answer"), first)
    world.answer(second)
    world.now += LATER
    assert world.take() == [first]
    world.log.windows.clear()
    world.fail(UnknownProducerIdError("forgotten"), first)
    assert world.resolved[-1] == Resolved(first, -1, None)


def test_answers_out_of_order_do_not_move_the_expected_sequence_back() -> None:
    world = World()
    first, second = world.send(2)
    world.store(first)
    world.answer(second, first)
    (third,) = world.send(1)
    world.fail(BusyError("full"), third)
    world.now += LATER
    assert world.take() == [third]
    assert third.stamp.sequence == 4


def test_what_expires_in_flight_is_told_at_once_and_a_late_answer_keeps_the_numbers() -> None:
    world = World()
    (first,) = world.send(1)
    assert world.lane.next_deadline() == first.deadline
    world.now += DELIVERY_TIMEOUT_S
    world.lane.expire(world.now)
    assert isinstance(world.fates()[first], TimedOutError)
    assert world.lane.next_deadline() is None
    world.answer(first)
    assert world.send(1) == world.batches[1:]
    assert world.batches[1].stamp.sequence == 2
    assert len(world.resolved) == 1


def test_a_new_leader_gets_nothing_before_the_old_one_has_answered() -> None:
    world = World()
    (first,) = world.send(1)
    world.lane.lead(2, 1, world.now)
    assert world.send(1) == []
    world.answer(first)
    assert world.take() == world.batches[1:]


def test_a_deleted_topic_fails_what_waits_and_what_comes_back() -> None:
    world = World()
    (first,) = world.send(1)
    world.lane.lead(-1, 1, world.now)
    world.send(1)
    world.lane.remove()
    assert isinstance(world.fates()[world.batches[1]], UnknownTopicError)
    world.fail(UnknownTopicError("never heard of it"), first)
    assert isinstance(world.fates()[first], UnknownTopicError)
    assert world.lane.unresolved() == 0


def test_a_topic_that_the_node_has_not_heard_of_yet_is_tried_again() -> None:
    world = World()
    (first,) = world.send(1)
    world.fail(UnknownTopicError("never heard of it"), first)
    world.now += LATER
    assert world.take() == [first]


def test_without_idempotence_everything_is_sent_again_in_order() -> None:
    world = World(idempotent=False)
    first, second = world.send(2)
    assert first.stamp is UNSTAMPED
    world.fail(ConnectionFailedError("lost"), second, first)
    world.now += LATER
    assert world.take() == [first, second]


@pytest.mark.parametrize("error", [FencedProducerError("newer"), InvalidTimestampError("later")])
def test_what_no_retry_can_help_fails_at_once(error: TailraceError) -> None:
    world = World()
    (first,) = world.send(1)
    world.fail(error, first)
    assert world.fates() == {first: error}


def test_abort_resolves_everything_and_says_what_is_in_doubt() -> None:
    world = World()
    (first,) = world.send(1)
    world.lane.lead(-1, 1, world.now)
    world.send(1)
    world.lane.abort(FencedProducerError("newer"))
    assert "may or may not be stored" in str(world.fates()[first])
    assert "may" not in str(world.fates()[world.batches[1]])
    world.answer(first)
    assert len(world.resolved) == 2
