"""All figures of one run beside their floors: what the README's table is made with.

    python benchmarks/floors.py [--quick] [--cold] [--json FILE]

Touches the machine's memory (`machine.py`; not with `--cold`), then runs the other benchmarks of this folder
one after the other, each with its own cluster, and prints the medians. The exit code is 1 if a floor was
missed. `--quick` takes fewer rounds, for a look.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from arguments import output_file, output_of
from machine import speed, touch_memory

HERE = Path(__file__).resolve().parent
M = 1e6


class Floor(NamedTuple):
    """A figure that has to be reached: `at_least`, or at most if that is False."""

    what: str
    take: Callable[[dict[str, Any]], float]
    bound: float
    unit: str
    at_least: bool = True

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


class Run(NamedTuple):
    """One benchmark, how it is run for the table and for a look, and the floors for what it finds."""

    script: str
    thorough: str
    quick: str
    floors: list[Floor]


def rate(what: str, bound: float, name: str) -> Floor:
    """Million records a second of one case."""
    return Floor(what, lambda figures: figures["records_per_s"][name] / M, bound, "M records/s")


def most(what: str, bound: float, unit: str, name: str) -> Floor:
    """A figure that is to be small, by its name."""
    return Floor(what, lambda figures: float(figures[name]), bound, unit, at_least=False)


def least(what: str, bound: float, unit: str, name: str, scale: float = 1.0) -> Floor:
    """A figure that is to be large, by its name."""
    return Floor(what, lambda figures: figures[name] / scale, bound, unit)


RUNS = [
    Run(
        "produce.py",
        "--repeat 7",
        "--repeat 3",
        [
            rate("send_many", 4.0, "send_many"),
            rate("send_many, keys", 1.5, "send_many, keys"),
            rate("send", 1.8, "send"),
            rate("send, keys", 1.8, "send, keys"),
        ],
    ),
    Run(
        "consume.py",
        "--repeat 7",
        "--repeat 3",
        [rate("batches()", 8.0, "batches"), rate("poll()", 3.0, "poll")],
    ),
    Run(
        "load.py",
        "--repeat 5",
        "--repeat 1 --megabytes 200",
        [
            least("written and read at once", 2.5, "M records/s", "both, records/s", M),
            least("4 + 4 processes, share of that", 0.8, "", "many, share of both"),
            least("1 KiB, written", 600, "MB/s", "1 KiB, written, MB/s"),
            least("1 KiB, read", 2_000, "MB/s", "1 KiB, read, MB/s"),
            least("64 KiB, written", 1_000, "MB/s", "64 KiB, written, MB/s"),
            least("64 KiB, read", 4_000, "MB/s", "64 KiB, read, MB/s"),
            least("1 MiB, written", 1_000, "MB/s", "1 MiB, written, MB/s"),
            least("1 MiB, read", 4_000, "MB/s", "1 MiB, read, MB/s"),
            most("node CPU, written", 0.2, "s/M records", "node CPU, s/M written"),
            most("node CPU, read", 0.03, "s/M records", "node CPU, s/M read"),
        ],
    ),
    Run(
        "latency.py",
        "--repeat 5 --seconds 10",
        "--repeat 1 --seconds 3",
        [most("latency p50 above the commit", 300, "us", "above_commit_us")],
    ),
    Run(
        "latency.py",
        "--repeat 5 --seconds 10 --ephemeral",
        "--repeat 1 --seconds 3 --ephemeral",
        [most("latency p50, ephemeral", 250, "us", "p50_us")],
    ),
    Run(
        "slowed.py",
        "--delay-ms 5 produce.py --repeat 3",
        "--delay-ms 5 produce.py --repeat 1",
        [rate("send_many, fdatasync + 5 ms", 1.0, "send_many")],
    ),
    Run(
        "slowed.py",
        "--delay-ms 5 consume.py --repeat 3",
        "--delay-ms 5 consume.py --repeat 1",
        [rate("batches(), fdatasync + 5 ms", 8.0, "batches")],
    ),
    Run(
        "slowed.py",
        "--delay-ms 5 latency.py --repeat 3 --seconds 10",
        "--delay-ms 5 latency.py --repeat 1 --seconds 3",
        # A record that comes while a commit is under way waits for its end, then for its own: 1.5 on average,
        # so that the first cannot hold, and the second tells what is added to that.
        [
            most("latency above it, fdatasync + 5 ms", 300, "us", "above_commit_us"),
            Floor(
                "latency, fdatasync + 5 ms", lambda f: f["p50_us"] / f["commit_p50_us"], 2, "commits", False
            ),
        ],
    ),
    Run(
        "slow_disk.py",
        "--seconds 10",
        "--seconds 3",
        [most("fetch p99, fdatasync + 50 ms", 5, "ms", "fetch_p99_ms")],
    ),
    Run(
        "cluster.py",
        "--idle-seconds 60 --gigabytes 5",
        "--idle-seconds 10 --gigabytes 1",
        [
            most("three nodes ready", 1.5, "s", "ready_s"),
            most("idle, all processes", 2, "% of a core", "idle_cpu_percent_of_a_core"),
            most("RssAnon, largest process", 60, "MB", "rss_anon_mb_max"),
            most("tailrace --help", 150, "ms", "help_ms"),
            most("restart after kill -9", 1, "s", "restart_s"),
        ],
    ),
]


def main() -> None:
    """Run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cold", action="store_true", help="do not touch the memory first")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    missing = [name for name in ("pytest", "hdrh", "numpy", "pyarrow") if find_spec(name) is None]
    if missing:
        parser.error(f"{', '.join(missing)} missing: pip install -e '.[dev]'")
    found: list[dict[str, Any]] = []
    missed = 0
    if not options.cold:
        touch_memory()
    print(f"Python {sys.version}, {platform.machine()}; medians; fsync before every ack")
    print(speed(), flush=True)
    for run in RUNS:
        arguments = (run.quick if options.quick else run.thorough).split()
        command = [sys.executable, str(HERE / run.script), *arguments, "--json"]
        figures: dict[str, Any] = json.loads(output_of(command))
        found.append({"script": run.script, "arguments": arguments, **figures})
        for floor in run.floors:
            value = floor.take(figures)
            missed += not floor.holds(value)
            sign = ">=" if floor.at_least else "<="
            verdict = "" if floor.holds(value) else "  missed"
            print(f"{floor.what:36}{value:10.2f} {floor.unit:12} {sign} {floor.bound:g}{verdict}", flush=True)
    print(f"{speed()} (again)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
