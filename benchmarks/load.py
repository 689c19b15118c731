"""Large records, writers beside readers, what a node's CPU costs: `tailrace bench` in several ways; medians.

    python benchmarks/load.py [--megabytes 500] [--repeat 3] [--json]

Each measurement has a cluster of its own in a temporary folder. MB are 10**6 bytes of values. "both" is one
producer and one consumer at once on one partition, "many" four and four on eight partitions of two nodes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from typing import Any

from arguments import output_of, positive

SIZES = {"100 B": 100, "1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20}
MANY = ("--producers", 4, "--consumers", 4, "--partitions", 8, "--nodes", 2)


def bench(mode: str, *options: object) -> dict[str, Any]:
    """The figures of one run of `tailrace bench`, which starts a cluster whatever the environment says."""
    command = [sys.executable, "-m", "tailrace", "bench", mode, "--json", "-", *map(str, options)]
    own = {name: value for name, value in os.environ.items() if name != "TAILRACE_BOOTSTRAP_SERVERS"}
    found: dict[str, Any] = json.loads(output_of(command, stderr=subprocess.DEVNULL, env=own))
    return found


def node_seconds(found: dict[str, Any], records: int) -> float:
    """CPU seconds of the nodes for a million records."""
    spent: float = sum(server["cpu_s"] for server in found["servers"] if server["name"] != "coordinator")
    return spent / records * 1e6


def measure(megabytes: int) -> dict[str, float]:
    """One round of everything."""
    figures: dict[str, float] = {}
    for name, size in SIZES.items():
        records = megabytes * 10**6 // size
        options = ("--records", records, "--record-size", size)
        written, read = bench("produce", *options), bench("consume", *options)
        figures[f"{name}, written, MB/s"] = written["records_per_s"] * size / 1e6
        figures[f"{name}, read, MB/s"] = read["records_per_s"] * size / 1e6
        if size == SIZES["100 B"]:
            figures["node CPU, s/M written"] = node_seconds(written, written["acked"])
            figures["node CPU, s/M read"] = node_seconds(read, read["read"])
    records = megabytes * 10**4
    figures["both, records/s"] = bench("e2e", "--records", records)["records_per_s"]
    figures["many, records/s"] = bench("e2e", "--records", records, *MANY)["records_per_s"]
    figures["many, share of both"] = figures["many, records/s"] / figures["both, records/s"]
    return figures


def main() -> None:
    """Print the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=positive, default=500, help="written in each measurement")
    parser.add_argument("--repeat", type=positive, default=3, help="rounds; the median is shown")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeat):
        for name, value in measure(options.megabytes).items():
            rounds[name].append(value)
    figures = {name: statistics.median(values) for name, values in rounds.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26}{value:14,.2f}")


if __name__ == "__main__":
    main()
