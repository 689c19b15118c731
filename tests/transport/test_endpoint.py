"""Addresses as users write them, the choice between two, and why one does not answer."""

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.transport import endpoint as endpoint_module
from tailrace.transport.context import Context
from tailrace.transport.endpoint import boot_id, choose, diagnose, parse_bootstrap, why_apart
from tailrace.transport.server import Server

from ..patience import PATIENCE_S

Own = Callable[..., Any]


@pytest.mark.parametrize(
    ("given", "endpoints"),
    [
        ("127.0.0.1:7070", ["tcp://127.0.0.1:7070"]),
        ("tcp://node-1.example:1", ["tcp://node-1.example:1"]),
        ("ipc:///run/x.sock", ["ipc:///run/x.sock"]),
        ("a:1, b:2,a:1", ["tcp://a:1", "tcp://b:2"]),
        (["a:1", "ipc://x"], ["tcp://a:1", "ipc://x"]),
        ("[::1]:7070", ["tcp://[::1]:7070"]),
    ],
)
def test_bootstrap_servers(given: str | list[str], endpoints: list[str]) -> None:
    assert parse_bootstrap(given) == endpoints


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "empty"),
        (",", "empty"),
        ([], "empty"),
        ("localhost", "host:port"),
        (":7070", "host:port"),
        ("::1:7070", "host:port"),
        ("host/path:7070", "host:port"),
        ("host:port", "port must be a number"),
        ("host:", "port must be a number"),
        ("host:70700", "port must be a number"),
        ("host:-1", "port must be a number"),
        ("host:0", "port 0"),
        ("ipc://", "no path"),
        ("http://host:80", "scheme"),
        ("a:1,b", "'b'"),
    ],
)
def test_wrong_bootstrap_servers_say_what_is_wrong(given: str | list[str], reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        parse_bootstrap(given)


def test_choose_prefers_ipc_on_this_machine_only(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    path.touch()
    ipc = f"ipc://{path}"
    assert boot_id() != ""
    here = Listener("tcp://h:1", ipc, boot_id())
    assert (choose(here), why_apart(here)) == (ipc, "")
    for apart, why in (
        (Listener("tcp://h:1", ipc, "another boot"), "it is on another machine"),
        (Listener("tcp://h:1", f"{ipc}.gone", boot_id()), "its local socket is not to be seen, or"),
        (Listener("tcp://h:1"), "it has no local socket"),
    ):
        assert choose(apart) == "tcp://h:1"
        assert why_apart(apart).startswith(why)


def test_diagnose_names_the_cause(
    context: Context, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "DIAGNOSE_TIMEOUT_S", 0.2)
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    assert "accepts connections but does not answer" in diagnose(server.listener.tcp)
    endpoint = server.listener.tcp
    server.close()
    with socket.socket() as unused:  # bound but not listening: nobody else can get the port meanwhile
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        assert "connection refused" in diagnose(endpoint)
    assert "no such host" in diagnose("tcp://no-such-host.invalid:7070")
    assert "no such socket" in diagnose(f"ipc://{tmp_path}/none.sock")
    plain = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(plain))
    assert "connection refused" in diagnose(f"ipc://{plain}")


class HandlersError(TimeoutError):
    """What a signal handler raises, such as one that bounds the application's time."""


def test_diagnose_does_not_take_a_signal_handlers_error_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(_number: int, _frame: object) -> None:
        raise HandlersError

    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            one_more = stack.enter_context(socket.socket())
            one_more.setblocking(False)
            one_more.connect_ex(full.getsockname())
        endpoint = f"tcp://127.0.0.1:{full.getsockname()[1]}"
        monkeypatch.setattr(endpoint_module, "DIAGNOSE_TIMEOUT_S", 0.2)
        assert "no answer within 0.2 s" in diagnose(endpoint)
        monkeypatch.setattr(endpoint_module, "DIAGNOSE_TIMEOUT_S", PATIENCE_S)
        before = signal.signal(signal.SIGUSR1, handle)
        stack.callback(signal.signal, signal.SIGUSR1, before)
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
        with pytest.raises(HandlersError):  # noqa: PT012
            timer.start()
            diagnose(endpoint)
        timer.join()
