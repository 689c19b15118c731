"""All figures of one run beside their floors: what the README's table is made with.

    python benchmarks/floors.py [--quick] [--json FILE]

Runs the other benchmarks of this folder one after the other, each with its own cluster, and prints the
medians. The exit code is 1 if a floor was missed. `--quick` takes fewer rounds, for a look.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


def rate(name: str) -> Callable[[dict[str, Any]], float]:
    """Million records a second of one case."""
    return lambda figures: figures["records_per_s"][name] / M


def plain(name: str) -> Callable[[dict[str, Any]], float]:
    """A figure by its name."""
    return lambda figures: float(figures[name])


BENCHMARKS: dict[str, tuple[list[str], list[str], list[Floor]]] = {
    "produce.py": (
        ["--repeat", "7"],
        ["--repeat", "3"],
        [
            Floor("send_many", rate("send_many"), 1.5, "M records/s"),
            Floor("send_many, keys", rate("send_many, keys"), 1.5, "M records/s"),
            Floor("send", rate("send"), 1.0, "M records/s"),
            Floor("send, keys", rate("send, keys"), 1.0, "M records/s"),
        ],
    ),
    "consume.py": (
        ["--repeat", "7"],
        ["--repeat", "3"],
        [
            Floor("batches()", rate("batches"), 2.0, "M records/s"),
            Floor("poll()", rate("poll"), 1.0, "M records/s"),
        ],
    ),
    "latency.py": (
        ["--repeat", "5", "--seconds", "10"],
        ["--repeat", "1", "--seconds", "3"],
        [Floor("latency p50 above the commit", plain("above_commit_us"), 500, "us", at_least=False)],
    ),
    "cluster.py": (
        ["--idle-seconds", "60", "--gigabytes", "5"],
        ["--idle-seconds", "10", "--gigabytes", "1"],
        [
            Floor("three nodes ready", plain("ready_s"), 1.5, "s", at_least=False),
            Floor(
                "idle, all processes", plain("idle_cpu_percent_of_a_core"), 2, "% of a core", at_least=False
            ),
            Floor("RssAnon, largest process", plain("rss_anon_mb_max"), 60, "MB", at_least=False),
            Floor("tailrace --help", plain("help_ms"), 150, "ms", at_least=False),
            Floor("restart after kill -9", plain("restart_s"), 1, "s", at_least=False),
        ],
    ),
    "slow_disk.py": (
        ["--seconds", "10"],
        ["--seconds", "3"],
        [Floor("fetch p99, fdatasync + 50 ms", plain("fetch_p99_ms"), 5, "ms", at_least=False)],
    ),
}


def main() -> None:
    """Run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    missed = 0
    print(f"Python {platform.python_version()}, {platform.machine()}; medians; fsync before every ack")
    for script, (thorough, quick, floors) in BENCHMARKS.items():
        command = [sys.executable, HERE / script, *(quick if options.quick else thorough), "--json"]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found[script] = json.loads(output)
        for floor in floors:
            value = floor.take(found[script])
            missed += not floor.holds(value)
            sign = ">=" if floor.at_least else "<="
            verdict = "" if floor.holds(value) else "  missed"
            print(f"{floor.what:32}{value:10.2f} {floor.unit:12} {sign} {floor.bound}{verdict}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
