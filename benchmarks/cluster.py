"""A whole cluster: start, rest, restart after kill -9 with a large log; and the start of the command line.

    python benchmarks/cluster.py [--idle-seconds 60] [--gigabytes 5] [--repeat 5] [--json]

"ready" runs from the start of `tailrace up configs/three-nodes.yaml` to its ready line. "idle" adds up the
CPU time of all five processes. "restart" runs from the start of a killed node to its ready line, its
log of `--gigabytes` in place.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import amount, positive

from tailrace import Admin
from tailrace.client.engine import Engine
from tailrace.protocol.columns import encode
from tailrace.protocol.messages import Produce, ProduceEntry
from tailrace.testing import Cluster

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "three-nodes.yaml"
TAILRACE = (sys.executable, "-P", "-m", "tailrace")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Up:
    """`tailrace up` in a folder of its own; `seconds` is how long it took to be ready."""

    def __init__(self, folder: str) -> None:
        command = [*TAILRACE, "up", str(CONFIG), "--data-dir", folder, "--port", "0", "--json"]
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.seconds = time.perf_counter() - started
        self.pids = [self.process.pid, *(process["pid"] for process in ready["processes"])]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_anon_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1_000


def start_and_rest(idle_s: float) -> tuple[float, float, float]:
    """Seconds until ready, percent of one core at rest, MB of the largest process."""
    with tempfile.TemporaryDirectory() as folder:
        up = Up(folder)
        try:
            before = sum(map(cpu_seconds, up.pids))
            time.sleep(idle_s)
            used = sum(map(cpu_seconds, up.pids)) - before
            return up.seconds, used / max(idle_s, 1e-9) * 100, max(map(rss_anon_mb, up.pids))
        finally:
            up.stop()


def restart(gigabytes: float) -> float:
    """Seconds from the start of a killed node to its ready line."""
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("large")
        fill(cluster.bootstrap_servers, int(gigabytes * 1e9))
        cluster.kill(1)
        started = time.perf_counter()
        cluster.start(1)
        return time.perf_counter() - started


def fill(bootstrap_servers: str, size: int) -> None:
    """Append batches of 1 MB until the log has `size` bytes."""
    engine = Engine(bootstrap_servers, name="fill")
    engine.start()
    topic = engine.wait_for_topic("large", 10)
    leader = topic.partitions[0]
    entry = ProduceEntry(topic.topic_id, 0, leader.leader_epoch)
    batch = encode([os.urandom(1_000)] * 1_000)

    def request(request_id: int) -> Any:
        return Produce(request_id, entries=[entry] * 8)

    for _ in range(size // len(batch) // 8):
        engine.call(leader.leader, request, [batch] * 8, timeout_s=60)
    engine.close()


def help_ms() -> float:
    started = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("tailrace"), "--help"], check=True, capture_output=True)
    return (time.perf_counter() - started) * 1_000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle-seconds", type=amount, default=60)
    parser.add_argument("--gigabytes", type=amount, default=5)
    parser.add_argument("--repeat", type=positive, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    starts = [start_and_rest(0)[0] for _ in range(options.repeat)]
    _, cpu_percent, memory_mb = start_and_rest(options.idle_seconds)
    figures = {
        "ready_s": statistics.median(starts),
        "idle_cpu_percent_of_a_core": cpu_percent,
        "rss_anon_mb_max": memory_mb,
        "help_ms": statistics.median(help_ms() for _ in range(options.repeat * 2)),
        "restart_s": restart(options.gigabytes),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:30}{value:10.2f}")


if __name__ == "__main__":
    main()
