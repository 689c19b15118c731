"""What processes use, and who listens where: this one is looked at."""

import os
import socket
import time
from collections.abc import Callable
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PAGESIZE, mmap
from pathlib import Path

import pytest

from tailrace.bench import servers, usage
from tailrace.bench.servers import Servers
from tailrace.bench.usage import Usage, listening_at, own_usage, usage_of

LARGE = 64 << 20
"""Bytes, as nothing else takes at once here."""


def test_of_a_process() -> None:
    before = usage_of(os.getpid())
    assert before is not None
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    after = usage_of(os.getpid())
    assert after is not None
    assert after.cpu_s >= before.cpu_s + 0.03  # in steps of 10 ms
    assert after.rss_anon is not None
    assert 1 << 20 < after.rss_anon < 1 << 34
    assert usage_of(2**22 + 1) is None


@pytest.mark.parametrize("anonymous", [False, True])
def test_memory_is_what_belongs_to_the_process_alone(anonymous: bool) -> None:
    """Not what it shares with others or has mapped of files, as a node has its log."""
    flags = MAP_ANONYMOUS | (MAP_PRIVATE if anonymous else MAP_SHARED)
    with mmap(-1, LARGE, flags) as memory:
        before = usage_of(os.getpid())
        for page in range(0, LARGE, PAGESIZE):
            memory[page] = 1
        after = usage_of(os.getpid())
    assert before is not None
    assert before.rss_anon is not None
    assert after is not None
    assert after.rss_anon is not None
    assert (after.rss_anon - before.rss_anon > LARGE / 2) is anonymous


def test_listeners() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            server = socket.create_server((host, 0), family=family)
        except OSError:  # a machine without IPv6
            continue
        with server:
            port = server.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            assert listening_at(f"tcp://{shown}:{port}") == os.getpid()
            assert listening_at(f"tcp://192.0.2.1:{port}") is None
        assert listening_at(f"tcp://{shown}:{port}") is None


def test_who_listens_elsewhere_at_the_same_port_is_another() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # so that no other process listens there
        port = server.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)):
            assert listening_at(f"tcp://127.0.0.1:{port}") is None
            server.listen()
            assert listening_at(f"tcp://127.0.0.1:{port}") == os.getpid()


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_who_listens_at_all_addresses(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, 0), family=family, dualstack_ipv6=":" in address)
    except OSError:  # a machine without IPv6
        return
    with server:
        for host in ("127.0.0.1", "localhost", socket.gethostname()):
            assert listening_at(f"tcp://{host}:{server.getsockname()[1]}") == os.getpid()


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`proc(pid, status)`: a /proc in which this process has that number."""
    monkeypatch.setattr(usage, "_PROC", tmp_path)

    def make(pid: int, status: str) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(
            f"{pid} (python) S {' '.join(['0'] * 10)} 300 200 {' '.join(['0'] * 30)}"
        )
        (folder / "status").write_text(f"Name:\tpython\n{status}")
        (tmp_path / "self").symlink_to(str(pid))

    return make


def test_numbers_of_another_namespace_are_other_processes(proc: Callable[..., None]) -> None:
    """What this one uses is known all the same."""
    ticks = os.sysconf("SC_CLK_TCK")
    proc(os.getpid() + 1, "RssAnon:\t    64 kB\n")
    assert own_usage() == Usage(500 / ticks, 64 * 1024)
    assert usage_of(os.getpid() + 1) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listening_at(f"tcp://127.0.0.1:{server.getsockname()[1]}") is None


def test_memory_that_is_not_told_is_not_known(proc: Callable[..., None]) -> None:
    proc(os.getpid(), "")
    found = usage_of(os.getpid())
    assert found is not None
    assert found.rss_anon is None
    watched = Servers({"node 1": os.getpid()})
    watched.begin()
    assert [(used.cpu_s, used.rss_anon_max) for used in watched.used] == [(0.0, None)]
    assert watched.gone == []


def test_what_servers_use_before_and_after_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {1: Usage(100.0, 50), 2: Usage(7.0, 60)}
    monkeypatch.setattr(servers, "usage_of", now.get)
    watched = Servers({"node 1": 1, "node 2": 2})
    watched.begin()
    now |= {1: Usage(101.0, 90), 2: Usage(7.25, 40)}
    watched.look()
    now |= {1: Usage(102.5, 80), 2: Usage(7.25, 40)}
    watched.end()
    now |= {1: Usage(200.0, 999), 2: Usage(300.0, 999)}
    assert [(used.cpu_s, used.rss_anon_max) for used in watched.used] == [(2.5, 90), (0.25, 60)]


def test_servers_that_are_not_found() -> None:
    servers = Servers({"node 1": os.getpid(), "node 2": None, "node 3": 2**22 + 1})
    servers.begin()
    servers.look()
    one, two, three = servers.used
    assert (one.cpu_s is not None, one.rss_anon_max is not None) == (True, True)
    assert (two.pid, two.cpu_s, two.rss_anon_max) == (None, None, None)
    assert (three.cpu_s, three.rss_anon_max) == (None, None)
