"""What is due when: an open loop keeps its schedule, whatever the sender is doing."""

from tailrace.bench.pacing import GRACE_NS, Pacer, Step

S = 1_000_000_000


def test_as_fast_as_possible() -> None:
    pacer = Pacer(0, step=40, records=100)
    steps = [pacer.step(now) for now in (5, 6, 7, 8)]
    assert steps == [Step(0, 40, 5), Step(40, 40, 6), Step(80, 20, 7), None]


def test_a_duration() -> None:
    pacer = Pacer(S, step=10, duration_s=2)
    assert pacer.step(S) == Step(0, 10, S)
    assert pacer.step(3 * S - 1) == Step(10, 10, 3 * S - 1)
    assert pacer.step(3 * S + GRACE_NS) is None


def test_a_rate_keeps_the_schedule_when_the_sender_is_late() -> None:
    pacer = Pacer(S, step=1, rate=10, records=4)
    now = S
    dues = []
    while (step := pacer.step(now)) is not None:
        dues.append(step.due_ns - S)
        now = S + 5 * S  # a long pause, after the first
    assert dues == [0, S // 10, 2 * S // 10, 3 * S // 10]


def test_a_high_rate_goes_in_steps() -> None:
    pacer = Pacer(0, step=1_000, steps_per_s=200, rate=100_000, duration_s=1)
    assert pacer.step(0) == Step(0, 500, 0)
    assert pacer.step(0) == Step(500, 500, S // 200)


def test_a_rate_for_a_time() -> None:
    pacer = Pacer(0, step=1, rate=100, duration_s=0.5)
    count = 0
    while (step := pacer.step(0)) is not None:
        count += step.records
    assert count == 50


def test_who_takes_turns_ends_with_the_others() -> None:
    """Ten producers have one record a second together: in the first second there is one."""
    dues = []
    for index in range(10):
        pacer = Pacer(S, step=1, rate=0.1, duration_s=1, turn_ns=index * S)
        while (step := pacer.step(S)) is not None:
            dues.append(step.due_ns)
    assert dues == [S]


def test_who_keeps_up_sends_all_that_is_due() -> None:
    """Whatever the shares: what is missing in the end was due and not sent."""
    for rate, duration_s, producers, step in (
        (997.0, 0.7, 3, 1),
        (12_345.6, 0.33, 7, 64),
        (10.0, 0.05, 4, 1),
    ):
        sent = 0
        for index in range(producers):
            turn_ns = round(index * 1e9 / rate)
            pacer = Pacer(
                0, step=step, steps_per_s=100, rate=rate / producers, duration_s=duration_s, turn_ns=turn_ns
            )
            while (due := pacer.step(0)) is not None:
                sent += due.records
        assert sent >= int(rate * duration_s)


def test_who_cannot_keep_up_ends_all_the_same() -> None:
    pacer = Pacer(0, step=1, rate=1_000_000, duration_s=1)
    assert pacer.step(S) is not None
    assert pacer.step(S + GRACE_NS) is None
