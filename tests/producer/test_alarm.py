"""Who is woken when, and that no interrupt leaves a batch unheard of."""

from math import inf

import pytest

from tailrace.producer.alarm import Alarm


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

    def come(self, due: float = inf) -> None:
        self.alarm.answer()
        self.alarm.rest(due)


def test_only_an_earlier_time_is_worth_a_wake() -> None:
    sleeper = Sleeper()
    for due, wakes in ((5.0, 1), (6.0, 1), (5.0, 1), (4.0, 2)):
        sleeper.alarm.set(due)
        sleeper.alarm.ring()
        assert sleeper.wakes == wakes
    sleeper.come(due=7.0)
    for due, wakes in ((8.0, 2), (6.0, 3)):
        sleeper.alarm.set(due)
        sleeper.alarm.ring()
        assert sleeper.wakes == wakes


def test_who_has_come_or_will_come_is_not_woken() -> None:
    sleeper = Sleeper()
    sleeper.alarm.set(5.0)
    sleeper.come()
    sleeper.alarm.ring()
    assert sleeper.wakes == 0
    sleeper.alarm.ring_now()
    sleeper.alarm.ring_now()
    sleeper.alarm.set(4.0)
    sleeper.alarm.ring()
    assert sleeper.wakes == 1
    sleeper.come()
    sleeper.alarm.ring_now()
    assert sleeper.wakes == 2


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


def test_a_batch_that_is_opened_while_another_thread_rings_is_heard_of() -> None:
    opened: list[Alarm] = []

    def wake() -> None:
        if not opened:
            opened.append(alarm)
            alarm.answer()
            alarm.rest(inf)
            alarm.set(6.0)  # by another thread, before this one has come back

    alarm = Alarm(wake)
    alarm.set(5.0)
    alarm.ring()
    wakes: list[float] = []
    alarm._wake = lambda: wakes.append(alarm.due)
    alarm.ring()
    assert wakes == [6.0]
