"""Average departure delay of each carrier, counted exactly once by three workers, one of which is killed.

    python examples/flights_delays.py                       # a sample of 2,000 rows
    python examples/flights_delays.py flights.csv.gz        # your copy of the whole file

The rows go to a topic as JSON, keyed by carrier. A pool of three processes adds up delays, each in
local state that changes together with the offsets; one of them is killed (SIGKILL) when a third is done.
The answer must be the one from the file.
"""

import argparse
import csv
import gzip
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tailrace import Admin, LocalTransaction, Producer, read_local_state
from tailrace.consumer import ColumnBatch
from tailrace.testing import Cluster
from tailrace.workers import Pool

SAMPLE = Path(__file__).resolve().parent / "data" / "flights-sample.csv"
TOPIC = "flights"
PARTITIONS = 6
WORKERS = 3
ROWS_A_SEND = 5_000
CHOSEN = ("carrier", "flight", "dep_delay", "time_hour")


def rows_of(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, gzipped or not."""
    with gzip.open(file, "rt", newline="") if file.suffix == ".gz" else file.open(newline="") as lines:
        yield from csv.DictReader(lines)


def answer_from_file(file: Path) -> dict[str, tuple[int, int]]:
    """Minutes and flights of each carrier; cancelled flights have no delay."""
    totals: dict[str, tuple[int, int]] = {}
    for row in rows_of(file):
        if row["dep_delay"] != "NA":
            minutes, flights = totals.get(row["carrier"], (0, 0))
            totals[row["carrier"]] = (minutes + int(row["dep_delay"]), flights + 1)
    return totals


def produce(bootstrap_servers: str, file: Path) -> int:
    """Every row as a record; how many."""
    sent = 0
    keys: list[bytes] = []
    values: list[bytes] = []
    with Producer(bootstrap_servers, compression_type="lz4") as producer:

        def send() -> None:
            producer.send_many(TOPIC, values, keys)
            keys.clear()
            values.clear()

        for row in rows_of(file):
            keys.append(row["carrier"].encode())
            values.append(json.dumps({name: row[name] for name in CHOSEN}).encode())
            sent += 1
            if len(values) == ROWS_A_SEND:
                send()
        send()
    return sent


def add_up(batch: ColumnBatch, state: LocalTransaction) -> None:
    """The handler: what it puts into `state` is stored with the offset of the batch, or not at all."""
    delays: dict[str, list[int]] = defaultdict(list)
    for row in batch.values:
        if row["dep_delay"] != "NA":
            delays[row["carrier"]].append(int(row["dep_delay"]))
    for carrier, minutes in delays.items():
        before = json.loads(state.get(carrier.encode()) or b"[0, 0]")
        state.put(carrier.encode(), json.dumps([before[0] + sum(minutes), before[1] + len(minutes)]).encode())


def count(bootstrap_servers: str, folder: Path, rows: int) -> dict[str, tuple[int, int]]:
    """What the pool has added up. The worker that is first to have done its third kills itself."""
    done = 0
    killed = folder / "killed"

    def add_up_or_die(batch: ColumnBatch, state: LocalTransaction) -> None:
        nonlocal done
        add_up(batch, state)
        done += len(batch)
        if done >= rows // WORKERS // 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)  # in the middle of its transaction

    Pool(
        add_up_or_die,
        TOPIC,
        "delays",
        processes=WORKERS,
        bootstrap_servers=bootstrap_servers,
        batches=True,
        value_deserializer="json",
        local_state=folder / "state",
        stop_at_end=True,
    ).run()
    assert killed.exists()
    totals: dict[str, tuple[int, int]] = {}
    for entry in read_local_state(folder / "state"):
        minutes, flights = json.loads(entry.value)
        before = totals.get(entry.key.decode(), (0, 0))
        totals[entry.key.decode()] = (before[0] + minutes, before[1] + flights)
    return totals


def main() -> int:
    """0 if the pool's answer is that of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        expected = answer_from_file(options.file)
    except OSError as error:
        parser.error(f"{options.file}: {error.strerror or error}")
    except (KeyError, ValueError, EOFError):
        parser.error(f"{options.file}: no CSV file with the columns {', '.join(CHOSEN)}")
    if not expected:
        parser.error(f"{options.file}: there are no flights in it")
    with tempfile.TemporaryDirectory() as folder, Cluster(nodes=1) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic(TOPIC, partitions=PARTITIONS)
        rows = produce(cluster.bootstrap_servers, options.file)
        started = time.perf_counter()
        totals = count(cluster.bootstrap_servers, Path(folder), rows)
        seconds = time.perf_counter() - started
    right = totals == expected
    if options.json:
        figures = {"rows": rows, "carriers": len(totals), "right": right}
        print(json.dumps({**figures, "seconds": round(seconds, 2)}))
    else:
        for carrier, (minutes, flights) in sorted(totals.items(), key=lambda item: -item[1][0] / item[1][1]):
            print(f"{carrier}  {minutes / flights:6.2f} min  {flights:7,} flights")
        told = "as in the file" if right else "NOT as in the file"
        print(f"{rows:,} rows in {seconds:.1f} s, one of {WORKERS} workers killed: {told}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
