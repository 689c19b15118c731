"""Work that is done beside other work."""

import os
import signal
import threading

import pytest

from tailrace.consumer.local.beside import THREADS_MAX, beside

from ...patience import PATIENCE_S


@pytest.mark.parametrize("count", [0, 1, 2, THREADS_MAX, 1_000])
def test_everything_is_done_once(count: int) -> None:
    done: list[int] = []
    beside(done.append, range(count))
    assert sorted(done) == list(range(count))


def test_as_many_at_once_as_may_be() -> None:
    """Each waits until all have begun."""
    barrier = threading.Barrier(THREADS_MAX)
    beside(lambda _: barrier.wait(PATIENCE_S) and None, range(THREADS_MAX))
    assert not barrier.broken


@pytest.mark.parametrize("count", [1, 100])
def test_a_failure_is_raised_when_all_have_ended(count: int) -> None:
    threads = threading.active_count()

    def fail(number: int) -> None:
        raise OSError(f"disk {number}")

    with pytest.raises(OSError, match="disk"):
        beside(fail, range(count))
    assert threading.active_count() == threads


def test_an_interruption_leaves_no_work_behind() -> None:
    """Ctrl-C while all work: it is raised when that has ended, and nothing more begins."""
    begun, go_on = threading.Barrier(THREADS_MAX + 1), threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        if not go_on.is_set():
            begun.wait(PATIENCE_S)
        assert go_on.wait(PATIENCE_S)
        done.append(number)

    def interrupt() -> None:
        begun.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGINT)
        go_on.set()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        beside(work, range(100_000))
    ended = sorted(done)
    interrupting.join()
    assert THREADS_MAX - 1 <= len(ended) < 100_000, "what other threads had begun has ended"
    assert sorted(done) == ended
