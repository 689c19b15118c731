"""Fetches beside writes whose fdatasync is slowed: how long reads take while the disk is busy.

    python benchmarks/slow_disk.py [--delay-ms 50] [--seconds 10] [--json]

One process keeps a node's writer waiting for the disk; another fetches the first batch, one request at a
time. Needs `.[dev]`, Linux and a C compiler (the delay is made by a library that is loaded into the node).
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from arguments import amount, natural

from tests.durability import recording
from tests.durability.cluster import Served, start_node
from tests.durability.log_client import LogClient, create_topic


def write(coordinator: str, stop: Any, commits: Any) -> None:
    """Commit one record after the other; milliseconds of each."""
    took: list[float] = []
    with LogClient(coordinator, "log") as client:
        while not stop.is_set():
            started = time.perf_counter()
            client.produce(bytes(1_000))
            took.append((time.perf_counter() - started) * 1_000)
    commits.put(took)


def read(coordinator: str, seconds: float, fetches: Any) -> None:
    """Fetch the first batch again and again; milliseconds of each."""
    took: list[float] = []
    with LogClient(coordinator, "log") as client:
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            assert client.fetch(0, max_bytes=1)
            took.append((time.perf_counter() - started) * 1_000)
    fetches.put(took)


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-ms", type=natural, default=50)
    parser.add_argument("--seconds", type=amount, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    stop, commits, fetches = spawn.Event(), spawn.Queue(), spawn.Queue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        control = folder / "control"
        env = recording.environment(control=control)
        with (
            Served("coordinator", folder / "coordinator") as coordinator,
            start_node(folder / "node", coordinator, env=env),
        ):
            create_topic(coordinator.endpoint, "log")
            with LogClient(coordinator.endpoint, "log") as client:
                client.produce(b"first")
            control.write_text(f"delay {options.delay_ms}")
            writer = spawn.Process(target=write, args=(coordinator.endpoint, stop, commits))
            reader = spawn.Process(target=read, args=(coordinator.endpoint, options.seconds, fetches))
            writer.start()
            reader.start()
            fetched = sorted(fetches.get())
            stop.set()
            committed = commits.get()
            writer.join()
            reader.join()
    figures = {
        "commit_p50_ms": statistics.median(committed),
        "fetches": len(fetched),
        "fetch_p50_ms": statistics.median(fetched),
        "fetch_p99_ms": fetched[len(fetched) * 99 // 100],
    }
    if options.json:
        print(json.dumps(figures))
        return
    for figure, value in figures.items():
        print(f"{figure:16}{value:10.2f}")


if __name__ == "__main__":
    main()
