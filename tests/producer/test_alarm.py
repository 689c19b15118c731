"""Who is woken when, and that no interrupt leaves a batch unheard of."""

from math import inf

import pytest

from tailrace.producer.alarm import AT_ONCE, Alarm


class Sleeper:
    """Counts how often it is woken; can be interrupted in it."""

    def __init__(self) -> None:
        self.wakes = 0
        self.interrupt = False
        self.alarm = Alarm(self._wake)

    def _wake(self) -> None:
        if self.interrupt:
            raise KeyboardInterrupt
        self.wakes += 1


def test_only_an_earlier_time_is_worth_a_wake() -> None:
    sleeper = Sleeper()
    for due, wakes in ((5.0, 1), (6.0, 1), (5.0, 1), (4.0, 2), (AT_ONCE, 3), (AT_ONCE, 3), (3.0, 3)):
        sleeper.alarm.set(due)
        sleeper.alarm.ring()
        assert sleeper.wakes == wakes
    sleeper.alarm.reset(7.0)
    for due, wakes in ((8.0, 3), (6.0, 4), (AT_ONCE, 5)):
        sleeper.alarm.set(due)
        sleeper.alarm.ring()
        assert sleeper.wakes == wakes


def test_who_has_come_meanwhile_is_not_woken() -> None:
    sleeper = Sleeper()
    sleeper.alarm.set(5.0)
    sleeper.alarm.reset(inf)
    sleeper.alarm.ring()
    assert sleeper.wakes == 0


def test_after_an_interrupt_the_next_one_rings() -> None:
    sleeper = Sleeper()
    sleeper.interrupt = True
    sleeper.alarm.set(5.0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sleeper.alarm.ring()
    sleeper.interrupt = False
    sleeper.alarm.set(6.0)
    sleeper.alarm.ring()
    assert sleeper.wakes == 1


def test_what_is_set_while_another_thread_rings_is_heard_of() -> None:
    wakes: list[str] = []

    def wake() -> None:
        wakes.append("wake")
        if len(wakes) == 1:
            alarm.reset(inf)  # the I/O thread comes, and then another thread, before this one goes on
            alarm.set(6.0)

    alarm = Alarm(wake)
    alarm.set(5.0)
    alarm.ring()
    alarm.ring()
    assert wakes == ["wake", "wake"]
