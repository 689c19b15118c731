"""Where the writer and the reader put what they finished, for the network thread."""

from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Generic, TypeVar

from tailrace.transport.wakeup import Wakeup

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many threads post, one takes: the one that has made it. It is woken only while it sleeps.

    The taker's order is: `fall_asleep`, look whether something `waits`, sleep, `wake_up`, take. Then nothing
    is missed: what is posted before it has fallen asleep is seen by the look, and what is posted after it
    sets the wakeup.

    While it sleeps another thread may take its turn, and open the letter that it has (`deliver`).
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._letters: deque[T] = deque()
        self._turn = RLock()
        self._turn.acquire()
        self.asleep = False

    def fall_asleep(self) -> None:
        """The taker's turn is over: it touches nothing until it wakes up that an opened letter may touch."""
        self.asleep = True
        self._turn.release()

    def wake_up(self) -> None:
        """It is the taker's turn again, once nobody opens a letter."""
        self._turn.acquire()
        self.asleep = False

    def post(self, letter: T) -> None:
        """Any thread."""
        self._letters.append(letter)
        if self.asleep:
            self._wakeup.set()

    def deliver(self, letter: T, open_letter: Callable[[T], bool]) -> None:
        """Post a letter; or open it in this thread, if the taker sleeps, or is this thread, and has no other.

        When `open_letter` returns False it has done nothing: the taker has to.
        """
        if not self._letters and self._turn.acquire(blocking=False):
            try:
                if open_letter(letter):
                    return
            finally:
                self._turn.release()
        self.post(letter)

    @property
    def waits(self) -> bool:
        """Is there something to take?"""
        return bool(self._letters)

    def take(self) -> list[T]:
        """All that was posted before this call."""
        letters = self._letters
        return [letters.popleft() for _ in range(len(letters))] if letters else []
