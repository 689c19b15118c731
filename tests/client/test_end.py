"""Closing, failing, forgetting, forking, Ctrl-C: nobody waits for ever, and everybody is told."""

import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from unittest.mock import Mock

import cloudpickle
import pytest

from tailrace import Admin, AsyncAdmin, AsyncConsumer, AsyncProducer, Consumer, Producer
from tailrace.client.bootstrap import Bootstrap
from tailrace.client.engine import Engine
from tailrace.client.loop import Loop
from tailrace.protocol.errors import ClosedError, LimitExceededError, TailraceError, TimedOutError
from tailrace.protocol.messages import Ping

from ..descriptors import descriptors
from ..patience import BUSY_S, PATIENCE_S
from .in_thread import attach


class Task:
    """Notes how it ended; `on_step` is what it does."""

    def __init__(self, on_step=lambda: None):
        self.on_step = on_step
        self.ends = []

    def step(self, now):
        return self.on_step()

    def cluster_changed(self): ...

    def closed(self, error):
        self.ends.append(error)


def waits(call):
    """Runs `call` in a thread; what it raised is in the list once the thread has ended."""
    raised = []

    def run():
        try:
            call()
        except TailraceError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


@pytest.mark.parametrize(
    "client",
    [Producer, Consumer, Admin, AsyncProducer, AsyncConsumer, AsyncAdmin],
    ids=lambda kind: kind.__name__,
)
def test_a_client_stays_in_its_process(client):
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(TypeError, match=f"{client.__name__} cannot be pickled.*make one in each process"):
            dumps([client.__new__(client)])


@pytest.mark.parametrize(
    "blocking",
    [
        lambda engine: engine.call(-1, Ping, timeout_s=60),
        lambda engine: engine.wait_for_topic("flights", 60),
        lambda engine: engine.refresh(60),
        lambda engine: engine.pause(60),
    ],
    ids=["call", "wait_for_topic", "refresh", "pause"],
)
def test_close_wakes_whoever_waits(coordinator, engine, blocking, eventually) -> None:
    coordinator.silent = True
    started = time.monotonic()
    thread, raised = waits(lambda: blocking(engine))
    time.sleep(0.05)  # so that it waits; if it does not yet, it is refused, which is as good
    engine.close()
    thread.join()
    assert [str(error) for error in raised] == ["test is closed"]
    assert isinstance(raised[0], ClosedError)
    assert time.monotonic() - started < BUSY_S


def test_close_wakes_who_waits_for_a_cluster_that_never_was(free_address, start_engine) -> None:
    engine = start_engine(free_address)
    thread, raised = waits(lambda: engine.ready(60))
    time.sleep(0.05)
    engine.close()
    thread.join()
    assert [type(error) for error in raised] == [ClosedError]


def test_a_closed_engine_says_so(engine) -> None:
    engine.close()
    engine.close()
    for use in (
        lambda: engine.submit(print),
        lambda: engine.call(-1, Ping, timeout_s=1),
        lambda: engine.ready(1),
        lambda: engine.wait_for_topic("flights", 1),
        engine.check,
    ):
        with pytest.raises(ClosedError, match="test is closed"):
            use()
    engine.wake()
    engine.request_refresh()


def test_an_engine_that_was_never_started_can_be_closed() -> None:
    Engine("127.0.0.1:1", name="idle").close()


def test_tasks_and_open_requests_are_told_of_the_end(coordinator, engine) -> None:
    coordinator.silent = True
    task, replies = Task(), []
    attach(engine, task)
    engine.submit(lambda: engine.request(-1, Ping, on_reply=lambda reply, frames: replies.append(reply)))
    engine.close()
    assert task.ends == [None]
    assert [type(reply) for reply in replies] == [ClosedError]


def test_a_request_made_while_closing_is_answered_too(coordinator, engine) -> None:
    coordinator.silent = True
    replies = []

    def once_more(reply, frames):
        replies.append(reply)
        if len(replies) < 3:
            engine.request(-1, Ping, on_reply=once_more)

    engine.submit(lambda: engine.request(-1, Ping, on_reply=once_more))
    engine.close()
    assert [type(reply) for reply in replies] == [ClosedError] * 3


def test_close_from_a_callback_does_not_wait_for_itself(engine) -> None:
    closed = threading.Event()

    def close():
        engine.close()
        closed.set()

    engine.submit(close)
    assert closed.wait(PATIENCE_S)
    engine.close()


def test_a_callback_cannot_wait_for_itself(engine) -> None:
    raised, done = [], threading.Event()

    def call():
        try:
            engine.call(-1, Ping, timeout_s=60)
        except TailraceError as error:
            raised.append(str(error))
        done.set()

    engine.submit(call)
    assert done.wait(PATIENCE_S)
    assert raised == ["test: a callback would wait for itself; do this in another thread"]


@pytest.mark.parametrize("where", ["step", "handler", "action"])
def test_a_bug_in_the_thread_fails_every_caller_and_is_logged(
    coordinator, engine, where, caplog, eventually
) -> None:
    def bug(*args):
        raise ZeroDivisionError("oops")

    bystander = Task()
    attach(engine, bystander)
    coordinator.silent = True
    thread, raised = waits(lambda: engine.call(-1, Ping, timeout_s=60))
    time.sleep(0.02)
    if where == "step":
        attach(engine, Task(bug))
    elif where == "action":
        engine.submit(bug)
    else:
        coordinator.silent = False
        engine.submit(lambda: engine.request(-1, Ping, on_reply=bug))
    thread.join()
    eventually(lambda: bystander.ends)
    message = "test: the I/O thread failed: ZeroDivisionError('oops')"
    if raised:  # the call may have been answered just before the handler failed
        assert [str(error) for error in raised] == [message]
    assert str(bystander.ends[0]) == message
    for use in (engine.check, lambda: engine.call(-1, Ping, timeout_s=1), lambda: engine.ready(1)):
        with pytest.raises(TailraceError, match="the I/O thread failed: ZeroDivisionError") as caught:
            use()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert any(record.exc_info for record in caplog.records), "with its traceback"
    engine.close()


def test_a_handler_that_fails_at_the_end_does_not_keep_others_from_being_told(engine, caplog) -> None:
    class Bad(Task):
        def closed(self, error):
            raise ZeroDivisionError("oops")

    good = Task()
    attach(engine, Bad())
    attach(engine, good)
    engine.close()
    assert good.ends == [None]
    assert "a handler failed at the end" in caplog.text


def test_too_few_file_descriptors_are_a_clear_error(coordinator, monkeypatch, caplog) -> None:
    full = LimitExceededError("no file descriptor is left")
    monkeypatch.setattr("tailrace.client.loop.Connection", Mock(side_effect=full))
    engine = Engine(coordinator.address, name="one of many")
    engine.start()
    with pytest.raises(LimitExceededError, match="one of many: no file descriptor is left"):
        engine.ready(PATIENCE_S)
    engine.close()
    assert "Traceback" not in caplog.text


def test_a_forgotten_engine_stops_and_warns(coordinator) -> None:
    engine = Engine(coordinator.address, name="forgotten")
    engine.start()
    engine.ready(PATIENCE_S)
    thread = next(thread for thread in threading.enumerate() if thread.name == "forgotten")
    held = [engine]
    del engine
    with pytest.warns(ResourceWarning, match="forgotten was not closed"):
        held.clear()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def run_script(body: str, *args: str) -> subprocess.CompletedProcess[str]:
    script = f"import os, signal, sys, threading, time\nfrom tailrace.client.engine import Engine\n{body}"
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", script, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_an_unclosed_engine_does_not_keep_the_interpreter(coordinator) -> None:
    done = run_script(
        "engine = Engine(sys.argv[1], name='left open')\nengine.start()\nengine.ready(30)\nprint('end')",
        coordinator.address,
    )
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert "ResourceWarning: left open was not closed" in done.stderr


FORK = """
engine = Engine(sys.argv[1], name="parent's")
engine.start()
engine.ready(30)
child = os.fork()
if child == 0:
    for use in (engine.check, lambda: engine.ready(60), lambda: engine.submit(print),
                lambda: engine.wait_for_topic("flights", 60)):
        try:
            use()
            print("no error", flush=True)
        except Exception as error:
            print(type(error).__name__, str(error).replace(str(os.getppid()), "PARENT"), flush=True)
    engine.close()
    own = Engine(sys.argv[1], name="child's")
    own.start()
    own.ready(30)
    own.close()
    sys.exit(7)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
engine.refresh(5)
engine.close()
"""


def test_after_a_fork_the_child_gets_an_error_and_the_parent_goes_on(coordinator) -> None:
    done = run_script(FORK, coordinator.address)
    error = "ClosedError parent's was made before fork() and belongs to process PARENT; make a new one here"
    assert done.stdout.splitlines() == [error] * 4 + ["child: 7"]
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


INTERRUPTED = """
engine = Engine(sys.argv[1], name="interrupted")
engine.start()
interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
started = time.monotonic()
try:
    interrupt.start()
    {call}
except KeyboardInterrupt:
    assert time.monotonic() - started < 20
    print("interrupted", flush=True)
engine.close()
"""


@pytest.mark.parametrize(
    "call",
    [
        "engine.ready(60)",
        "engine.wait_for_topic('flights', 60)",
        "engine.pause(60)",
    ],
)
def test_ctrl_c_interrupts_every_blocking_call(free_address, call) -> None:
    done = run_script(INTERRUPTED.format(call=call), free_address)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def loop() -> Iterator[Loop]:
    """As its thread leaves it before it waits."""
    loop = Loop(Bootstrap("127.0.0.1:1"), "test")
    loop._sleeping = True
    yield loop
    loop.release()


def test_a_wake_that_was_interrupted_does_not_keep_the_next_one_from_waking(monkeypatch, loop) -> None:

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._wakeup, "set", interrupted)
        for wake in (loop.wake, lambda: loop.defer(print)):
            with pytest.raises(KeyboardInterrupt):
                wake()
    loop.wake()
    assert select.select([loop._wakeup.fileno()], [], [], 0)[0]


def test_a_handler_that_wakes_within_a_wake_is_heard_at_once(monkeypatch, loop) -> None:
    """It may wait for what it has the I/O thread do."""
    flag = loop._wakeup.set

    def interrupted() -> None:
        monkeypatch.setattr(loop._wakeup, "set", flag)
        loop.defer(print)  # as a signal handler does, before the flag is set
        assert select.select([loop._wakeup.fileno()], [], [], 0)[0]
        flag()

    monkeypatch.setattr(loop._wakeup, "set", interrupted)
    loop.wake()
    assert loop._waking is None


def test_who_wakes_while_another_is_interrupted_in_it_is_heard(monkeypatch, loop) -> None:
    flag = loop._wakeup.set

    def interrupted() -> None:
        monkeypatch.setattr(loop._wakeup, "set", flag)
        loop.wake()  # another thread, while the signal handler runs
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._wakeup, "set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
    assert select.select([loop._wakeup.fileno()], [], [], 0)[0]


def test_ctrl_c_without_a_handler_ends_the_process(free_address) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from tailrace.client.admin import Admin; print(1, flush=True)\n"
            "with Admin(sys.argv[1]) as admin: admin.list_topics(timeout_ms=60_000)",
            free_address,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - started < BUSY_S


def test_a_busy_io_thread_does_not_make_a_call_wait_for_ever(engine, monkeypatch) -> None:
    monkeypatch.setattr("tailrace.client.answer.GRACE_S", 0.1)
    release = threading.Event()
    engine.submit(lambda: release.wait(10) and None)
    with pytest.raises(TimedOutError, match="the I/O thread was busy"):
        engine.call(-1, Ping, timeout_s=0.1)
    release.set()


def test_no_descriptor_is_left_behind(coordinator) -> None:
    def cycle():
        engine = Engine(coordinator.address, name="short")
        engine.start()
        engine.ready(PATIENCE_S)
        engine.close()

    cycle()
    before = descriptors()
    for _ in range(5):
        cycle()
    assert descriptors() <= before + 2
