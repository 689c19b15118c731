"""Fetch sessions against a model that looks at every session each time, and the rules for each fetch."""

from math import inf

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.node import fetch_sessions
from tailrace.node.fetch_sessions import FetchSession, FetchSessions
from tailrace.protocol.errors import BusyError, RequestTooLargeError, UnknownFetchSessionError
from tailrace.protocol.messages import Fetch, FetchEntry

TOPIC = bytes(16)
PARTITIONS = st.integers(0, 3)
PEERS = (b"one", b"two")


def ask(
    sessions: FetchSessions,
    partitions: list[int],
    *,
    peer: bytes = PEERS[0],
    session: int = 1,
    epoch: int = 0,
    deadline: float = 1.0,
    news: bool = False,
) -> FetchSession:
    entries = [FetchEntry(TOPIC, partition, 0, 0, 1) for partition in partitions]
    request = Fetch(1, entries=entries, session=session, epoch=epoch)
    return sessions.ask(peer, request, deadline=deadline, slot=None, has_news=lambda _: news)


def keys(*partitions: int) -> list[tuple[bytes, int]]:
    return [(TOPIC, partition) for partition in partitions]


@pytest.fixture
def sessions() -> FetchSessions:
    return FetchSessions(sessions_max=3, entries_max=8)


def test_who_was_answered_leaves_and_who_is_named_joins(sessions: FetchSessions) -> None:
    first = ask(sessions, [0, 1, 2], news=True)
    assert list(first.ready) == keys(0, 1, 2)
    sessions.answered(first, keys(0))
    again = ask(sessions, [0], epoch=1, news=True)
    assert again is first
    assert list(again.ready) == keys(1, 2, 0), "in turn"
    sessions.answered(again, keys(1, 0, 2))
    assert len(sessions) == 0, "nothing is left to wait for"


def test_who_is_named_has_its_turn_behind_those_that_wait(sessions: FetchSessions) -> None:
    """Also one that was not answered: it was named because it goes on from elsewhere."""
    session = ask(sessions, [0, 1, 2], news=True)
    sessions.answered(session, [])
    assert list(ask(sessions, [0], epoch=1, news=True).ready) == keys(1, 2, 0)
    sessions.answered(session, [])
    assert list(ask(sessions, [2], epoch=2, news=False).ready) == keys(1, 0), "there is nothing to tell of it"
    assert len(session.entries) == 3


def test_a_fetch_that_does_not_follow_the_last_one(sessions: FetchSessions) -> None:
    with pytest.raises(UnknownFetchSessionError, match="begin anew"):
        ask(sessions, [0], epoch=1)
    session = ask(sessions, [0, 1])
    with pytest.raises(UnknownFetchSessionError):
        ask(sessions, [2], epoch=1)
    sessions.answered(session, [])
    for epoch in (2, 5):
        with pytest.raises(UnknownFetchSessionError):
            ask(sessions, [2], epoch=epoch)
    with pytest.raises(UnknownFetchSessionError):
        ask(sessions, [2], epoch=1, peer=PEERS[1])
    assert len(ask(sessions, [2], epoch=1).entries) == 3


def test_epoch_0_takes_the_place_of_what_was_there(sessions: FetchSessions) -> None:
    sessions.answered(ask(sessions, [0, 1]), [])
    assert list(ask(sessions, [2]).entries) == keys(2)
    assert len(sessions) == 1


def test_epoch_0_ends_the_wait_of_a_fetch_that_is_in_its_place(sessions: FetchSessions) -> None:
    first = ask(sessions, [0, 1])
    sessions.park(first, 1)
    second = ask(sessions, [2])
    assert sessions.take_replaced() == [first]
    assert sessions.take_replaced() == []
    assert first.deadline < 0
    sessions.answered(first, keys(0))
    sessions.park(second, 1)
    assert sessions.appended(dict.fromkeys(keys(0, 1, 2), 1)) == [second]
    assert len(sessions) == 1
    sessions.answered(second, [])
    assert ask(sessions, [], epoch=1) is second


def test_epoch_0_takes_the_place_of_a_fetch_that_is_being_read(sessions: FetchSessions) -> None:
    first = ask(sessions, [0])
    second = ask(sessions, [1])
    assert sessions.take_replaced() == [], "it gets its answer from the disk"
    sessions.answered(first, keys(0))
    sessions.answered(second, [])
    assert ask(sessions, [], epoch=1) is second
    assert len(sessions) == 1


def test_those_that_rest_longest_make_room(sessions: FetchSessions) -> None:
    for number in (1, 2, 3):
        sessions.answered(ask(sessions, [0, 1], session=number), [])
    sessions.answered(ask(sessions, [], session=1, epoch=1), [])
    ask(sessions, [0], session=4)
    with pytest.raises(UnknownFetchSessionError):
        ask(sessions, [], session=2, epoch=1)
    ask(sessions, [], session=1, epoch=2)
    ask(sessions, [], session=3, epoch=1)
    with pytest.raises(BusyError):
        ask(sessions, [0], session=5)
    assert len(sessions) == 3


def test_no_more_partitions_than_a_request_has(
    sessions: FetchSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_sessions, "PARTITIONS_PER_REQUEST_MAX", 2)
    sessions.answered(ask(sessions, [0, 1]), [])
    with pytest.raises(RequestTooLargeError):
        ask(sessions, [2], epoch=1)
    assert len(sessions) == 0


def test_sessions_end_with_their_connection(sessions: FetchSessions) -> None:
    sessions.answered(ask(sessions, [0], session=1), [])
    waiting = ask(sessions, [0], session=2)
    sessions.park(waiting, 1)
    sessions.gone([PEERS[0], b"unknown"])
    assert len(sessions) == 1
    assert sessions.appended({(TOPIC, 0): 1}) == [waiting]
    sessions.answered(waiting, [])
    assert len(sessions) == 0


class SessionsModel(RuleBasedStateMachine):
    """`waits`: what each session should wait for; `parked`: deadline and missing bytes of its fetch."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.sessions = FetchSessions(sessions_max=4, entries_max=9)
        self.waits: dict[FetchSession, set[int]] = {}
        self.parked: dict[FetchSession, tuple[float, int]] = {}

    @rule(
        peer=st.sampled_from(PEERS),
        number=st.integers(0, 2),
        partitions=st.lists(PARTITIONS, max_size=4),
        follow=st.booleans(),
        wait=st.floats(0, 5),
        missing=st.integers(1, 30),
    )
    def fetch(
        self, peer: bytes, number: int, partitions: list[int], follow: bool, wait: float, missing: int
    ) -> None:
        before = next((s for s in self.waits if number and (s.peer, s.number) == (peer, number)), None)
        epoch = before.epoch + 1 if follow and before is not None else 0
        deadline = self.now + wait
        try:
            session = ask(
                self.sessions, partitions, peer=peer, session=number, epoch=epoch, deadline=deadline
            )
        except UnknownFetchSessionError:
            assert epoch
            assert before in self.parked, "its fetch waits still"
            return
        except BusyError:
            self._forget_ended()
            full = len(self.waits) >= 4 or sum(map(len, self.waits.values())) + len(set(partitions)) > 9
            assert full
            assert set(self.waits) == set(self.parked), "nobody could make room"
            self._replace(before, epoch)
            return
        if before is not None and before not in self.parked and session is not before:
            del self.waits[before]
        self._replace(before, epoch)
        self._forget_ended()
        self.waits[session] = self.waits.get(session, set()) | set(partitions)
        self.sessions.park(session, missing)
        self.parked[session] = (deadline, missing)

    def _replace(self, before: FetchSession | None, epoch: int) -> None:
        expected = {before} if before in self.parked and not epoch else set()
        self._answer(self.sessions.take_replaced(), expected, ())

    @rule(sizes=st.dictionaries(PARTITIONS, st.integers(1, 20), max_size=3), answered=st.booleans())
    def append(self, sizes: dict[int, int], answered: bool) -> None:
        expected = set()
        for session, (deadline, missing) in tuple(self.parked.items()):
            left = missing - sum(size for key, size in sizes.items() if key in self.waits[session])
            self.parked[session] = (deadline, left)
            if left <= 0:
                expected.add(session)
        woken = self.sessions.appended({(TOPIC, key): size for key, size in sizes.items()})
        for session, waits in self.waits.items():
            assert {(TOPIC, key) for key in waits & sizes.keys()} <= session.ready.keys()
        self._answer(woken, expected, sizes if answered else {})

    @rule(partitions=st.sets(PARTITIONS, max_size=2))
    def change(self, partitions: set[int]) -> None:
        expected = {session for session in self.parked if partitions & self.waits[session]}
        self._answer(self.sessions.changed(keys(*partitions)), expected, partitions)

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        expected = {session for session, (deadline, _) in self.parked.items() if deadline <= self.now}
        self._answer(self.sessions.expired(self.now), expected, ())

    @rule(peer=st.sampled_from(PEERS))
    def lose(self, peer: bytes) -> None:
        self.sessions.gone([peer])
        for session in tuple(self.waits):
            if session.peer == peer and session not in self.parked:
                del self.waits[session]

    def _answer(self, woken: list[FetchSession], expected: set[FetchSession], told: object) -> None:
        assert len(woken) == len(set(woken))
        assert set(woken) == expected
        partitions = set(told)  # type: ignore[call-overload]
        for session in woken:
            del self.parked[session]
            self.sessions.answered(session, keys(*(partitions & self.waits[session])))
            self.waits[session] -= partitions
            if not (session.number and self.waits[session]):
                del self.waits[session]

    def _forget_ended(self) -> None:
        """Those that had to make room: only some that rested."""
        for session in tuple(self.waits):
            if session not in self.parked and not session.entries:
                del self.waits[session]

    @invariant()
    def it_waits_for_what_it_should(self) -> None:
        assert len(self.sessions) == len(self.waits)
        for session, waits in self.waits.items():
            assert session.entries.keys() == set(keys(*waits))
            assert session.ready.keys() <= session.entries.keys()
        deadlines = [deadline for deadline, _ in self.parked.values()]
        assert self.sessions.next_deadline() == min(deadlines, default=inf)


TestSessionsModel = SessionsModel.TestCase
TestSessionsModel.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
