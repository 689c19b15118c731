"""Signals to who has something to undo: one interrupts, now or when it may."""

import signal

import pytest

from tailrace.cli.interrupts import Interrupts
from tailrace.processes.signal_pipe import stop_signals


@pytest.mark.parametrize("number", stop_signals())
def test_only_one_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert interrupts.raised
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_one_that_waits() -> None:
    with Interrupts() as interrupts:
        interrupts.hold()
        signal.raise_signal(signal.SIGTERM)
        assert not interrupts.raised
        with pytest.raises(KeyboardInterrupt):
            interrupts.release()
        assert interrupts.raised


def test_a_second_one_does_not_wait() -> None:
    with Interrupts() as interrupts:
        interrupts.hold()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.release()


def test_what_was_held_is_over() -> None:
    with Interrupts() as interrupts:
        interrupts.hold()
        interrupts.release()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
