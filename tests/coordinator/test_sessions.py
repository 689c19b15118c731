"""Who is alive: sessions under a clock that the test moves."""

import pytest

from tailrace.coordinator.sessions import Sessions

TIMEOUT = 6.0


def run_until(sessions: Sessions, start: float, end: float) -> dict[int, float]:
    """Look whenever the sessions ask to be looked at; who expired, and when it was noticed."""
    noticed: dict[int, float] = {}
    now = start
    while (due := sessions.next_look()) is not None and max(now, due) <= end:
        now = max(now, due)
        for node_id in sessions.expired(now):
            noticed[node_id] = now
            sessions.end(node_id)
    return noticed


def test_a_silent_node_expires_on_time() -> None:
    sessions = Sessions(TIMEOUT, 100.0)
    sessions.hear(1, 100.0)
    sessions.hear(2, 101.5)
    assert run_until(sessions, 100.0, 105.9) == {}
    assert run_until(sessions, 105.9, 120.0) == {1: 106.0, 2: 107.5}
    assert sessions.next_look() is None


def test_a_heartbeat_starts_the_time_out_anew() -> None:
    sessions = Sessions(TIMEOUT, 0.0)
    sessions.hear(1, 0.0)
    assert run_until(sessions, 0.0, 5.0) == {}
    sessions.hear(1, 5.0)
    assert run_until(sessions, 5.0, 30.0) == {1: 11.0}


@pytest.mark.parametrize("pause", [3.1, 7.0, 1_000.0])
def test_a_coordinator_that_was_stopped_blames_nobody(pause: float) -> None:
    sessions = Sessions(TIMEOUT, 0.0)
    sessions.hear(1, 0.0)
    sessions.hear(2, 0.0)
    assert sessions.expired(pause) == []
    sessions.hear(1, pause + 1)
    assert run_until(sessions, pause, pause + TIMEOUT) == {2: pause + TIMEOUT}


def test_an_ended_session_does_not_expire() -> None:
    sessions = Sessions(TIMEOUT, 0.0)
    sessions.hear(1, 0.0)
    sessions.end(1)
    sessions.end(1)
    assert run_until(sessions, 0.0, 30.0) == {}
