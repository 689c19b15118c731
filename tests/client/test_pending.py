"""Requests wait by id, and stop waiting in the order of their deadlines."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.client.pending import Pending, PendingRequests
from tailrace.protocol.messages import Pong


def _pending(request_id: int, deadline: float = 1.0, destination: int = 1) -> Pending:
    return Pending(
        request_id,
        destination,
        b"h",
        (b"f",),
        on_reply=lambda reply, frames: None,
        since=0.0,
        deadline=deadline,
    )


def test_a_sent_request_lets_go_of_its_bytes() -> None:
    pending = _pending(1)
    pending.mark_sent()
    assert pending.sent
    assert pending.header is None
    assert not pending.frames


def test_only_what_one_destination_was_sent_is_taken() -> None:
    requests = PendingRequests()
    for request_id, destination, sent in [(1, 1, True), (2, 1, False), (3, 2, True), (4, 1, True)]:
        pending = _pending(request_id, destination=destination)
        if sent:
            pending.mark_sent()
        requests.add(pending)
    assert [pending.request_id for pending in requests.take_sent(1)] == [1, 4]
    assert [pending.request_id for pending in requests.take_all()] == [2, 3]
    assert requests.next_deadline() == inf


def test_another_thread_claims_an_answer_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is looked for what a lost connection was given; that of another one."""
    requests = PendingRequests()
    lost, answered, left = _pending(1), _pending(2, destination=2), _pending(3, destination=2)
    for pending in (lost, answered, left):
        requests.add(pending)

    def sent(_: Pending) -> bool:
        requests.claim(answered, Pong(2), [])
        return True

    monkeypatch.setattr(Pending, "sent", property(sent))
    assert requests.take_sent(1) == [lost]
    assert requests.get(2) is None
    assert requests.get(3) is left
    requests.finish_claimed()
    answered.on_reply = lambda reply, frames: pytest.fail("told twice")
    assert not requests.claim(answered, Pong(2), []), "it was taken out"
    requests.finish_claimed()


def test_an_answer_takes_only_what_its_sender_was_asked() -> None:
    requests = PendingRequests()
    requests.add(_pending(1, destination=1))
    assert requests.take_answered(1, 2) is None
    assert requests.take_answered(2, 1) is None
    taken = requests.take_answered(1, 1)
    assert taken is not None
    assert taken.request_id == 1
    assert requests.take_answered(1, 1) is None


def test_many_answered_requests_leave_no_heap_behind() -> None:
    requests = PendingRequests()
    for request_id in range(10_000):
        requests.add(_pending(request_id, deadline=30.0 + request_id))
        assert requests.take(request_id) is not None
    assert len(requests._deadlines) < 100
    assert requests.next_deadline() == inf


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60), st.integers(0, 50))
def test_expired_requests_come_out_once_and_answered_ones_never(
    entries: list[tuple[int, bool]], now: int
) -> None:
    requests = PendingRequests()
    for request_id, (deadline, answered) in enumerate(entries):
        requests.add(_pending(request_id, deadline))
        if answered:
            requests.take(request_id)
    waiting = [(deadline, i) for i, (deadline, answered) in enumerate(entries) if not answered]
    assert requests.next_deadline() == min((deadline for deadline, _ in waiting), default=inf)
    expired = [(pending.deadline, pending.request_id) for pending in requests.take_expired(now)]
    assert expired == sorted(entry for entry in waiting if entry[0] <= now)
    assert requests.take_expired(now) == []
    assert len(requests) == len(waiting) - len(expired)
