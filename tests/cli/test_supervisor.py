"""The supervisor with children that misbehave as a real node hardly can be made to."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tailrace.cli import supervisor as supervisor_module
from tailrace.cli.supervisor import Supervisor
from tailrace.processes.launch import Event, Launcher, Role
from tailrace.processes.layout import Layout

from ..patience import PATIENCE_S

READY = 'print(\'{"event":"ready","pid":%d,"tcp":"tcp://127.0.0.1:7","ipc":""}\' % os.getpid(), flush=True)'
SLEEP = "time.sleep(60)"
WAIT_FOR_GO = "while not os.path.exists('go'): time.sleep(0.01)"
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@dataclass(frozen=True)
class Scripts(Launcher):
    """Children that run a few lines of Python in place of a role."""

    scripts: dict[int | None, str]

    def command(self, role: Role, parent_fd: int, port: int | None = None) -> list[str]:
        return [sys.executable, "-c", f"import os, signal, sys, time\n{self.scripts[role.node_id]}"]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, list[Event], bytes]]]:
    """Run a supervisor; `on_event` gets each event, in the supervisor's own thread."""
    reader, writer = os.pipe()

    def run(
        node: str, on_event: Callable[[Event], None], coordinator: str = f"{READY}\n{SLEEP}"
    ) -> tuple[int, list[Event], bytes]:
        events: list[Event] = []
        monkeypatch.chdir(tmp_path)

        def report(event: Event) -> None:
            events.append(event)
            if event["event"] == "ready":
                (tmp_path / "go").touch()
            on_event(event)

        scripts = Scripts(tmp_path / "none.yaml", Layout(tmp_path), {None: coordinator, 1: node})
        code = Supervisor(scripts, [1], report, writer).run(None)
        os.write(writer, b"end")
        return code, events, os.read(reader, 1 << 16)

    yield run
    os.close(reader)
    os.close(writer)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def on(name: str, action: Callable[[], None]) -> Callable[[Event], None]:
    """Act at the first event of this name."""
    acted = False

    def on_event(event: Event) -> None:
        nonlocal acted
        if event["event"] == name and not acted:
            acted = True
            action()

    return on_event


def test_a_storage_fault_is_not_restarted(run: Callable[..., tuple]) -> None:
    failed = '{"event":"failed","message":"disk says EIO"}'
    node = f"{READY}\n{WAIT_FOR_GO}\nprint('{failed}', flush=True)\nsys.exit(3)"
    code, events, _ = run(node, on("exited", lambda: threading.Timer(0.3, interrupt).start()))
    assert [event["event"] for event in events] == ["ready", "exited", "stopped"]
    assert events[1]["restart_in_ms"] is None
    assert events[1]["reason"] == "disk says EIO"
    assert code == 0


def test_a_process_that_dies_again_and_again_waits_longer(run: Callable[..., tuple]) -> None:
    count = 0

    def third() -> None:
        nonlocal count
        count += 1
        if count == 3:
            interrupt()

    def on_event(event: Event) -> None:
        if event["event"] == "exited":
            third()

    _, events, _ = run(f"{READY}\n{WAIT_FOR_GO}\nsys.exit(7)", on_event)
    exited = [event for event in events if event["event"] == "exited"]
    assert [event["restart_in_ms"] for event in exited] == [100, 200, 400]
    assert {event["reason"] for event in exited} == {"exit code 7"}


def on_stop(then: str) -> str:
    """A child's: asked to stop, it interrupts the supervisor once more, then does this."""
    handler = f"(time.sleep(0.2), os.kill(os.getppid(), signal.SIGINT), {then})"
    return f"signal.signal(signal.SIGTERM, lambda *_: {handler})"


def test_a_second_signal_kills_what_does_not_stop(
    run: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "SAME_SIGNAL_S", 0.1)
    monkeypatch.setattr(supervisor_module, "STOP_WITHIN_S", PATIENCE_S)
    code, events, log = run(f"{on_stop('None')}\n{READY}\nwhile True: {SLEEP}", on("ready", interrupt))
    assert code == 1
    assert events[-1] == {"event": "stopped", "exit_code": 1}
    assert b"killing node-1\n" in log


def test_the_same_signal_from_a_wrapper_is_no_second_one(
    run: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "SAME_SIGNAL_S", PATIENCE_S)
    monkeypatch.setattr(supervisor_module, "STOP_WITHIN_S", PATIENCE_S)
    child = f"{on_stop('(time.sleep(0.2), sys.exit(0))')}\n{READY}\n{SLEEP}"
    code, _, log = run(child, on("ready", interrupt))
    assert code == 0
    assert b"killing" not in log


def test_what_takes_too_long_to_stop_is_killed(
    run: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_WITHIN_S", 0.2)
    code, _, log = run(f"{IGNORE}\n{READY}\n{SLEEP}", on("ready", interrupt))
    assert code == 1
    assert b"killing node-1\n" in log


@pytest.mark.slow
def test_a_process_that_is_never_ready_is_named(
    run: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "READY_WITHIN_S", 5.0)
    code, events, _ = run(SLEEP, lambda _: None)
    assert events[0] == {"event": "failed", "message": "not ready within 5 s: node-1"}
    assert code == 1


def test_a_failed_start_tells_its_reason_and_stops_the_others(run: Callable[..., tuple]) -> None:
    failed = '{"event":"failed","message":"port 7 in use"}'
    code, events, log = run(
        f"print('{failed}', flush=True)\nprint('dying words', file=sys.stderr)\nsys.exit(1)", lambda _: None
    )
    assert events[0] == {"event": "failed", "message": "node-1 could not start: port 7 in use"}
    assert code == 1
    assert b"node-1      | dying words\n" in log


def test_a_signal_before_it_is_ready_stops_it(run: Callable[..., tuple]) -> None:
    code, events, _ = run(f"os.kill(os.getppid(), signal.SIGINT)\n{SLEEP}", lambda _: None)
    assert [event["event"] for event in events] == ["stopped"]
    assert code == 0


def test_other_prints_are_passed_on_as_logs(run: Callable[..., tuple]) -> None:
    _, _, log = run(f"print('hello')\nprint('[1]')\n{READY}\n{SLEEP}", on("ready", interrupt))
    assert b"node-1      | hello\nnode-1      | [1]\n" in log


def test_what_apply_asks_for_is_done_to_a_node_that_does_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_WITHIN_S", 0.2)
    events: list[Event] = []
    asked = {"ready": "restart", "restarted": "stop"}

    def report(event: Event) -> None:
        events.append(event)
        if event["event"] in asked:
            status = supervisor._on_request({"op": asked[event["event"]], "node_id": 1})
            assert [member["ready"] for member in status["members"]] == [True, False]
        elif event["event"] == "removed":
            interrupt()

    scripts = {None: f"{READY}\n{SLEEP}", 1: f"{IGNORE}\n{READY}\n{SLEEP}"}
    launcher = Scripts(tmp_path / "none.yaml", Layout(tmp_path), scripts)
    with Path(os.devnull).open("wb") as log:
        supervisor = Supervisor(launcher, [1], report, log.fileno())
        supervisor.run(None)
    assert [event["event"] for event in events] == ["ready", "restarted", "removed", "stopped"]
