"""The back-off of a process that dies."""

from tailrace.processes.restarts import FIRST_S, LONGEST_S, STABLE_S, Restarts


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    restarts = Restarts()
    pauses = []
    for now in range(10):
        restarts.ready(now)
        pauses.append(restarts.died(now + 0.5))
    assert pauses[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert pauses[-1] == LONGEST_S


def test_a_stable_process_starts_anew_at_once() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.died(0)
    restarts.ready(100)
    assert restarts.died(100 + STABLE_S) == FIRST_S


def test_being_slow_to_start_is_not_being_stable() -> None:
    restarts = Restarts()
    restarts.died(0)
    assert restarts.died(1_000) == 2 * FIRST_S
