"""Changes in the I/O thread: what they end in reaches the one who asked for them."""

import threading
from collections.abc import Callable

import pytest

from tailrace.consumer.undisturbed import Undisturbed
from tailrace.protocol.errors import ClosedError


def in_a_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action).start()


def closed(_action: Callable[[], None]) -> None:
    raise ClosedError("the I/O thread has ended")


@pytest.mark.parametrize("submit", [in_a_thread, closed])
def test_what_a_change_raises_is_raised_once(submit: Callable[[Callable[[], None]], None]) -> None:
    undisturbed, made = Undisturbed(submit), list[int]()

    def fail() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        undisturbed.make(fail)
    undisturbed.finish()
    undisturbed.make(lambda: made.append(1))
    undisturbed.finish()
    assert made == [1]
