"""Every flight that left New York in 2013, through a cluster of three nodes and back: exactly once.

    python examples/flights.py                       # a sample of 2,000 rows
    python examples/flights.py flights.csv.gz        # your copy of the whole file

Two producer processes send their half of the rows each, as JSON keyed by carrier; three consumer
processes read four partitions each. Then everything is checked against the file. The second run
does the same while every process of the cluster is killed (SIGKILL) and started again.
"""

import argparse
import contextlib
import csv
import gzip
import itertools
import json
import logging
import multiprocessing as mp
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tailrace import Admin, Consumer, Producer, TopicPartition

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "data" / "flights-sample.csv"
CONFIG = ROOT / "configs" / "three-nodes.yaml"
TOPIC = "flights"
PARTITIONS = 12
PRODUCERS = 2
CONSUMERS = 3
UNACKED_AT_THE_KILL = 1_000
UNACKED_BEFORE = 1_200  # some acknowledgements are still on their way then
ROWS_MIN = 2_000  # so that so many can be under way at the kill
WATCH_EVERY_S = 0.0002
READY_WITHIN_S = 30.0
DONE_WITHIN_S = 300.0

console = Console(stderr=True)
spawn = mp.get_context("spawn")


# ------------------------------------------------------------------ the cluster


class Cluster:
    """`tailrace up configs/three-nodes.yaml` in a folder of its own, on a free port that it keeps."""

    def __init__(self, data_dir: Path) -> None:
        self._kept = socket.socket()  # nobody else is given the port while no coordinator listens
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.port = self._kept.getsockname()[1]
        self.data_dir = data_dir
        self.bootstrap_servers = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start every process; returns when the cluster is ready."""
        command = ["up", CONFIG, "--data-dir", self.data_dir, "--port", self.port, "--json"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tailrace", *map(str, command)],
            stdout=subprocess.PIPE,
            text=True,
            env={"TAILRACE_LOG_LEVEL": "WARNING", **os.environ},
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline() or "{}")
        if ready.get("event") != "ready":
            raise SystemExit("the cluster did not start; its messages are above")
        self.pids = [self.process.pid, *(process["pid"] for process in ready["processes"])]
        self.nodes = [process["pid"] for process in ready["processes"] if process["role"] == "node"]

    def freeze(self) -> None:
        """SIGSTOP for every node, wherever it is: what is on its way stays there."""
        for pid in self.nodes:
            os.kill(pid, signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL for every node, the coordinator and the supervisor; returns when all are gone.

        The supervisor is the last, and starts none again: the kernel has nodes that stand still go on
        when their parent ends before them (_exit(2)), and they would acknowledge what has come.
        """
        self.process.send_signal(signal.SIGSTOP)
        processes = [os.pidfd_open(pid) for pid in reversed(self.pids)]
        for process in processes:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        for process in processes:
            select.select([process], [], [], READY_WITHIN_S)
            os.close(process)
        self._reap()

    def stop(self) -> None:
        """Stop cleanly."""
        self.process.terminate()
        self._reap()
        self._kept.close()

    def _reap(self) -> None:
        self.process.wait(READY_WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


# ------------------------------------------------------------- client processes


@dataclass(frozen=True)
class Shared:
    """What the processes tell each other. Counters have one slot a process, so they need no lock."""

    sent: Any = field(default_factory=lambda: spawn.RawArray("q", PRODUCERS))
    acked: Any = field(default_factory=lambda: spawn.RawArray("q", PRODUCERS))
    in_flight: Any = field(default_factory=lambda: spawn.RawArray("q", PRODUCERS))
    read: Any = field(default_factory=lambda: spawn.RawArray("q", CONSUMERS))
    gate: Any = field(default_factory=lambda: spawn.Barrier(PRODUCERS + 1))
    all_acked: Any = field(default_factory=spawn.Event)
    results: Any = field(default_factory=spawn.Queue)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, compressed or not."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as lines:
        yield from csv.DictReader(lines)


def produce(index: int, path: Path, total: int, bootstrap_servers: str, hold_at: int, shared: Shared) -> None:
    """Send this process's half of the file; wait at the gate after `hold_at` rows."""
    mine = range(index * total // PRODUCERS, (index + 1) * total // PRODUCERS)
    acked = 0
    logging.getLogger("tailrace").setLevel(logging.ERROR)  # the kill is ours: no news under the bars

    def on_ack(_: object) -> None:
        nonlocal acked
        acked += 1
        shared.acked[index] = acked

    with Producer(
        bootstrap_servers, linger_ms=3_000 if hold_at else 5, key_serializer=str.encode
    ) as producer:

        def send(records: Iterable[tuple[str, bytes, int]]) -> None:
            for key, value, timestamp_ms in records:
                delivery = producer.send(TOPIC, value, key, timestamp_ms=timestamp_ms)
                delivery.add_callback(on_ack)
                shared.sent[index] += 1

        records = records_of(path, index, mine)
        if hold_at:
            send(itertools.islice(records, hold_at))
            producer.flush()
            rest = list(records)  # sent in one go, so that the kill meets full pipelines
            watch = threading.Thread(target=watch_pipeline, args=(producer, shared, index, len(mine)))
            watch.start()
            shared.gate.wait(DONE_WITHIN_S)
            send(rest)
            watch.join()
        else:
            send(records)


def records_of(path: Path, index: int, mine: range) -> Iterator[tuple[str, bytes, int]]:
    """(key, value, timestamp in ms) of this process's rows."""
    for number, row in enumerate(itertools.islice(rows_of(path), mine.stop)):
        if number >= mine.start:
            value = json.dumps({"producer": index, "row": number, **row}).encode()
            yield row["carrier"], value, int(datetime.fromisoformat(row["time_hour"]).timestamp() * 1000)


def watch_pipeline(producer: Producer, shared: Shared, index: int, total: int) -> None:
    """Tell how many batches are on their way, until all are acknowledged."""
    while shared.acked[index] < total:
        shared.in_flight[index] = int(producer.metrics()["batches_in_flight"])
        time.sleep(WATCH_EVERY_S)


def consume(index: int, bootstrap_servers: str, shared: Shared) -> None:
    """Read this process's partitions until all that was acknowledged is read; report the rows in order."""
    share = PARTITIONS // CONSUMERS
    partitions = [TopicPartition(TOPIC, number) for number in range(index * share, (index + 1) * share)]
    rows: list[tuple[str, int, int]] = []
    logging.getLogger("tailrace").setLevel(logging.ERROR)  # the kill is ours: no news under the bars
    with Consumer(
        bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", value_deserializer=json.loads
    ) as consumer:
        consumer.assign(partitions)
        while True:
            last_round = shared.all_acked.is_set()
            for records in consumer.poll(timeout_ms=200).values():
                rows.extend((r.key.decode(), r.value["producer"], r.value["row"]) for r in records)
            shared.read[index] = len(rows)
            if last_round and all(
                consumer.position(p) == end for p, end in consumer.end_offsets(partitions).items()
            ):
                break
    shared.results.put((index, rows))


# -------------------------------------------------------------------- the runs


def run(path: Path, expected: Counter[str], *, crash: bool) -> dict[str, float]:
    """One run on a fresh cluster; raises AssertionError if a row is lost, doubled or out of order."""
    total = expected.total()
    shared = Shared()
    with tempfile.TemporaryDirectory(prefix="flights-") as folder:
        cluster = Cluster(Path(folder))
        try:
            with Admin(cluster.bootstrap_servers) as admin:
                admin.create_topic(TOPIC, partitions=PARTITIONS)
            started = time.monotonic()
            unacked = move_rows(path, total, cluster, shared, crash=crash)
            results = collect(shared)
            seconds = time.monotonic() - started
        finally:
            cluster.stop()
    check(results, expected)
    figures = {
        "rows": total,
        "carriers": len(expected),
        "seconds": round(seconds, 2),
        "rows_per_s": round(total / seconds),
    }
    return figures | ({"unacked_at_the_kill": unacked} if crash else {})


def move_rows(path: Path, total: int, cluster: Cluster, shared: Shared, *, crash: bool) -> int:
    """Start the client processes and see them through; the number of unacked records at the kill."""
    hold_at = total // PRODUCERS // 8 if crash else 0
    where = cluster.bootstrap_servers
    producers = [
        spawn.Process(target=produce, args=(n, path, total, where, hold_at, shared), daemon=True)
        for n in range(PRODUCERS)
    ]
    consumers = [
        spawn.Process(target=consume, args=(n, where, shared), daemon=True) for n in range(CONSUMERS)
    ]
    for process in producers + consumers:
        process.start()
    unacked = 0
    with progress_bar(total) as show:
        if crash:
            wait(lambda: sum(shared.acked) >= PRODUCERS * hold_at, producers + consumers, shared, show)
            cluster.freeze()
            shared.gate.wait(DONE_WITHIN_S)
            unacked = kill_in_flight(cluster, shared, producers + consumers, show)
            assert unacked >= UNACKED_AT_THE_KILL, f"only {unacked} records were unacked at the kill"
            cluster.start()
        wait(lambda: sum(shared.acked) == total, producers + consumers, shared, show)
        shared.all_acked.set()
        wait(lambda: sum(shared.read) >= total, consumers, shared, show)
    for process in producers:
        process.join(DONE_WITHIN_S)
        assert process.exitcode == 0, f"a producer process ended with {process.exitcode}"
    return unacked


def kill_in_flight(cluster: Cluster, shared: Shared, processes: list[Any], show: Any) -> int:
    """SIGKILL for the whole cluster with batches on their way; how many records were unacknowledged.

    The nodes are suspended, so that none of what the producers send now is acknowledged before.
    """

    def enough() -> bool:
        return sum(shared.in_flight) > 0 and sum(shared.sent) - sum(shared.acked) >= UNACKED_BEFORE

    wait(enough, processes, shared, show, every_s=WATCH_EVERY_S)
    sent = sum(shared.sent)
    cluster.kill()
    return sent - sum(shared.acked)


def collect(shared: Shared) -> list[list[tuple[str, int, int]]]:
    """What each consumer process read, in the order in which it read it."""
    try:
        return [shared.results.get(timeout=DONE_WITHIN_S)[1] for _ in range(CONSUMERS)]
    except queue.Empty:
        raise SystemExit("a consumer process did not report") from None


def check(results: list[list[tuple[str, int, int]]], expected: Counter[str]) -> None:
    """Every row exactly once; the rows of one producer and key in the order in which they were sent."""
    numbers = [number for rows in results for _, _, number in rows]
    assert len(numbers) == len(set(numbers)), f"{len(numbers) - len(set(numbers))} rows came twice"
    assert len(numbers) == expected.total(), f"{expected.total() - len(numbers)} rows are missing"
    last: dict[tuple[str, int], int] = {}
    for rows in results:
        for key, producer, number in rows:
            assert last.get((key, producer), -1) < number, f"row {number} of {key} came out of order"
            last[key, producer] = number
    counts = Counter(key for rows in results for key, _, _ in rows)
    assert counts == expected, "the counts per carrier differ from the file's"


# --------------------------------------------------------------------- showing


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[Any]:
    """Bars for what was acknowledged and what was read."""
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: list[TaskID] = [progress.add_task(name, total=total) for name in ("acked", "read")]

        def show(shared: Shared) -> None:
            progress.update(tasks[0], completed=sum(shared.acked))
            progress.update(tasks[1], completed=sum(shared.read))

        yield show


def wait(condition: Any, processes: list[Any], shared: Shared, show: Any, every_s: float = 0.02) -> None:
    """Until the condition holds; a process that failed or a long silence ends the run."""
    deadline = time.monotonic() + DONE_WITHIN_S
    while not condition():
        if any(process.exitcode for process in processes):
            raise SystemExit("a client process failed; its messages are above")
        if time.monotonic() > deadline:
            raise SystemExit(
                f"no end after {DONE_WITHIN_S:.0f} s: {sum(shared.acked)} acked, {sum(shared.read)} read"
            )
        show(shared)
        time.sleep(every_s)
    show(shared)


def carriers_of(path: Path) -> Counter[str]:
    """How many rows each carrier has. Raises ValueError for what is no file of flights."""
    try:
        found = Counter(row["carrier"] for row in rows_of(path) if row["time_hour"])
    except OSError as error:
        raise ValueError(error.strerror or error) from None
    except (KeyError, csv.Error, UnicodeDecodeError, EOFError):
        raise ValueError("no CSV file with the columns carrier and time_hour") from None
    if found.total() < ROWS_MIN:
        raise ValueError(f"{found.total():,} rows; {ROWS_MIN:,} are needed")
    return found


def main() -> None:
    """Both runs, and their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="?", type=Path, default=SAMPLE, help="the flights, as .csv or .csv.gz")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    try:
        expected = carriers_of(options.csv)
    except ValueError as error:
        parser.error(f"{options.csv}: {error}")
    figures = {}
    for name, crash in (("plain", False), ("everything killed", True)):
        console.print(f"[bold]{name}[/bold]: {expected.total():,} rows, {len(expected)} carriers")
        figures[name] = run(options.csv, expected, crash=crash)
    if options.json:
        print(json.dumps(figures))
        return
    for name, result in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in result.items()))
    print("every row exactly once, in order per key and producer; counts per carrier as in the file")
    for carrier, count in sorted(expected.items(), key=lambda item: -item[1]):
        print(f"  {carrier} {count:>7,}")


if __name__ == "__main__":
    main()
