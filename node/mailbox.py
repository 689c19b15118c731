"""Where the writer and the reader put what they finished, for the network thread."""

from collections import deque
from typing import Generic, TypeVar

from tailrace.transport.wakeup import Wakeup

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many threads post, one takes. The taker is woken only while it sleeps.

    The taker's order is: `asleep = True`, look whether something `waits`, sleep, `asleep = False`,
    take. Then nothing is missed: what is posted before `asleep` is set is seen by the look, and
    what is posted after it sets the wakeup.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._letters: deque[T] = deque()
        self.asleep = False

    def post(self, letter: T) -> None:
        """Any thread."""
        self._letters.append(letter)
        if self.asleep:
            self._wakeup.set()

    @property
    def waits(self) -> bool:
        """Is there something to take?"""
        return bool(self._letters)

    def take(self) -> list[T]:
        """All that was posted before this call."""
        letters = self._letters
        return [letters.popleft() for _ in range(len(letters))] if letters else []
