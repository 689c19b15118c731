"""Letters from other threads: taken, or opened by who has them while their taker sleeps."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tailrace.node.mailbox import Mailbox
from tailrace.transport.poller import Poller
from tailrace.transport.wakeup import Wakeup

from ..patience import PATIENCE_S


class Taker:
    """This thread, which has made the mailbox."""

    def __init__(self, wakeup: Wakeup) -> None:
        self.mailbox: Mailbox[str] = Mailbox(wakeup)
        self.opened: list[tuple[str, str]] = []
        """(letter, by which thread)"""
        self.opens = True
        self._wakeup = wakeup
        self._poller = Poller()
        self._poller.add(wakeup)

    def open(self, letter: str) -> bool:
        if self.opens:
            self.opened.append((letter, threading.current_thread().name))
        return self.opens

    def deliver_elsewhere(self, letter: str) -> None:
        elsewhere(lambda: self.mailbox.deliver(letter, self.open))

    def is_rung(self) -> bool:
        rung = bool(self._poller.poll(0))
        self._wakeup.clear()
        return rung


def elsewhere(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action, name="poster")
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def taker() -> Iterator[Taker]:
    wakeup = Wakeup()
    yield Taker(wakeup)
    wakeup.close()


def test_a_letter_is_opened_by_its_poster_while_the_taker_sleeps(taker: Taker) -> None:
    taker.mailbox.fall_asleep()
    taker.deliver_elsewhere("a")
    assert taker.opened == [("a", "poster")]
    assert not taker.is_rung()
    taker.mailbox.wake_up()
    assert taker.mailbox.take() == []


def test_a_letter_is_posted_while_the_taker_is_awake(taker: Taker) -> None:
    taker.deliver_elsewhere("a")
    assert taker.opened == []
    assert taker.mailbox.take() == ["a"]
    taker.mailbox.fall_asleep()
    taker.mailbox.wake_up()
    taker.deliver_elsewhere("b")
    assert taker.mailbox.take() == ["b"]


def test_no_letter_is_opened_before_one_that_waits(taker: Taker) -> None:
    taker.mailbox.post("a")
    taker.mailbox.fall_asleep()
    taker.deliver_elsewhere("b")
    taker.mailbox.wake_up()
    assert taker.opened == []
    assert taker.mailbox.take() == ["a", "b"]


def test_what_only_the_taker_can_open_wakes_it(taker: Taker) -> None:
    taker.opens = False
    taker.mailbox.fall_asleep()
    taker.deliver_elsewhere("a")
    assert taker.is_rung()
    taker.mailbox.wake_up()
    assert taker.mailbox.take() == ["a"]


def test_the_taker_opens_its_own_letters_at_once(taker: Taker) -> None:
    taker.mailbox.deliver("a", taker.open)
    assert taker.opened == [("a", threading.current_thread().name)]
    assert taker.mailbox.take() == []


def test_the_taker_does_not_wake_up_in_the_midst_of_an_opening(taker: Taker) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def open_slowly(letter: str) -> bool:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return taker.open(letter)

    taker.mailbox.fall_asleep()
    poster = threading.Thread(target=lambda: taker.mailbox.deliver("a", open_slowly), name="poster")
    poster.start()
    assert begun.wait(PATIENCE_S)
    # Comes after `wake_up`; if this thread is held up for longer, the test says less, and holds.
    threading.Timer(0.05, go_on.set).start()
    taker.mailbox.wake_up()
    assert taker.opened == [("a", "poster")]
    poster.join()


def test_the_turn_is_free_again_after_an_opening_that_failed(taker: Taker) -> None:
    def fail(letter: str) -> bool:
        raise LookupError(letter)

    def deliver() -> None:
        with pytest.raises(LookupError):
            taker.mailbox.deliver("a", fail)

    taker.mailbox.fall_asleep()
    elsewhere(deliver)
    taker.deliver_elsewhere("b")
    taker.mailbox.wake_up()
    assert taker.opened == [("b", "poster")]
