"""From just before `send` to in the consumer's hands, beside the bare commit of the same run.

    python benchmarks/latency.py [--seconds 10] [--rate 1000] [--repeat 3] [--ephemeral] [--json]

One producer process (linger 0), one consumer process, one node, all over ipc, 100 B records. The commit
is that of the same batches at the same rate, an idempotent producer's with the time of the day, with its
fsync, in storage of the node's kind, before and after each round. With `--ephemeral` nothing is synced,
neither by the node nor in the bare commit.
"""

import argparse
import json
import multiprocessing
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import amount, positive

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.node.storage.environment import Storage
from tailrace.node.storage.log_plan import Append, Appended
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.testing import Cluster

STAMP = struct.Struct("<q")
WARM_UP_S = 1.0
RECORD_BYTES = 100


def produce(bootstrap_servers: str, rate: int, seconds: float) -> None:
    """Send stamped records at a fixed rate, whatever the answers take."""
    tail = bytes(RECORD_BYTES - STAMP.size)
    with Producer(bootstrap_servers, linger_ms=0) as producer:
        start = time.monotonic_ns()
        for number in range(int(rate * seconds)):
            due = start + number * 1_000_000_000 // rate
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            producer.send("latency", STAMP.pack(time.monotonic_ns()) + tail)


def consume(bootstrap_servers: str, count: int, ready: Any, result: Any) -> None:
    """Receive `count` records; their latencies in microseconds."""
    latencies: list[float] = []
    place = TopicPartition("latency", 0)
    with Consumer(bootstrap_servers=bootstrap_servers) as consumer:
        consumer.assign([place])
        consumer.position(place)  # what is sent before it knows where the end is would never come
        ready.set()
        while len(latencies) < count:
            for records in consumer.poll(timeout_ms=1_000).values():
                now = time.monotonic_ns()
                latencies += [(now - STAMP.unpack_from(record.value)[0]) / 1_000 for record in records]
    result.put(latencies)


def commits(rate: int, *, ephemeral: bool, count: int = 1_000) -> list[float]:
    """Microseconds of each commit of one small batch, so many a second: as cold as the node's are."""
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "storage"
        storage = Storage.open(where, quota_bytes=1 << 30, reserve_bytes=1 << 20, ephemeral=ephemeral)
        storage.create([(bytes(16), 0)])
        log = storage.logs[bytes(16), 0]
        start = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            now_ms = time.time_ns() // 1_000_000
            batch = encode(
                [bytes(RECORD_BYTES)],
                timestamps=now_ms,
                producer_id=1,
                producer_epoch=0,
                base_sequence=number,
            )
            view = memoryview(bytearray(batch))
            append = Append(log, view, parse_header(view), now_ms)
            started = time.perf_counter()
            (stored,) = storage.commit([append])
            took.append((time.perf_counter() - started) * 1e6)
            if not isinstance(stored, Appended):
                raise stored
        storage.close(clean=True)
    return took


def measure(rate: int, seconds: float, *, ephemeral: bool) -> dict[str, float]:
    """One round."""
    spawn = multiprocessing.get_context("spawn")
    bare = commits(rate, ephemeral=ephemeral)
    with Cluster(ephemeral=ephemeral) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("latency")
        ready, result = spawn.Event(), spawn.Queue()
        where, length = cluster.bootstrap_servers, WARM_UP_S + seconds
        reader = spawn.Process(target=consume, args=(where, int(rate * length), ready, result))
        reader.start()
        ready.wait()
        writer = spawn.Process(target=produce, args=(where, rate, length))
        writer.start()
        latencies = result.get()[int(rate * WARM_UP_S) :]
        writer.join()
        reader.join()
    bare += commits(rate, ephemeral=ephemeral)
    latencies.sort()
    at = {f"p{p}_us": latencies[min(len(latencies) - 1, int(len(latencies) * p / 100))] for p in (50, 95, 99)}
    return {**at, "commit_p50_us": statistics.median(bare)}


def main() -> None:
    """Print the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=amount, default=10)
    parser.add_argument("--rate", type=positive, default=1_000, help="records a second")
    parser.add_argument("--repeat", type=positive, default=3)
    parser.add_argument("--ephemeral", action="store_true", help="a node that keeps nothing over a restart")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = [
        measure(options.rate, options.seconds, ephemeral=options.ephemeral) for _ in range(options.repeat)
    ]
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    figures["above_commit_us"] = statistics.median(
        found["p50_us"] - found["commit_p50_us"] for found in rounds
    )
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:18}{value:10.0f}")


if __name__ == "__main__":
    main()
