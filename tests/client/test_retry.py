"""Pauses grow, stay within bounds, and start anew after a success."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tailrace.client.retry import Backoff


@given(st.integers(), st.integers(1, 40))
def test_pauses_double_up_to_the_longest_with_at_most_half_taken_off(seed: int, attempts: int) -> None:
    backoff = Backoff(Random(seed), first_s=0.01, longest_s=1.0)
    for attempt in range(attempts):
        whole_s = min(0.01 * 2**attempt, 1.0)
        assert whole_s / 2 <= backoff.pause() <= whole_s


def test_clients_do_not_come_back_in_step() -> None:
    pauses = {Backoff(Random(seed)).pause() for seed in range(100)}
    assert len(pauses) > 90


def test_after_a_success_the_first_pause_is_short_again() -> None:
    backoff = Backoff(Random(1), first_s=0.01, longest_s=1.0)
    for _ in range(10):
        backoff.pause()
    backoff.reset()
    assert backoff.pause() <= 0.01
