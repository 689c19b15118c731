"""What processes use, and who listens where: this one is looked at."""

import os
import socket
import time

from tailrace.bench.servers import Servers
from tailrace.bench.usage import listening_at, usage_of


def test_of_a_process() -> None:
    before = usage_of(os.getpid())
    assert before is not None
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    after = usage_of(os.getpid())
    assert after is not None
    assert after.cpu_s >= before.cpu_s + 0.03  # in steps of 10 ms
    assert 1 << 20 < after.rss_anon < 1 << 34
    assert usage_of(2**22 + 1) is None


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


def test_servers_that_are_not_found() -> None:
    servers = Servers({"node 1": os.getpid(), "node 2": None, "node 3": 2**22 + 1})
    servers.begin()
    servers.look()
    one, two, three = servers.used
    assert (one.cpu_s is not None, one.rss_anon_max is not None) == (True, True)
    assert (two.pid, two.cpu_s, two.rss_anon_max) == (None, None, None)
    assert (three.cpu_s, three.rss_anon_max) == (None, None)
