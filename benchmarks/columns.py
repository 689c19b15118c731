"""`send_many` of lists, numpy arrays and Arrow arrays, and what reads them; medians, and ratios to lists.

    python benchmarks/columns.py [--records 1000000] [--bytes 100] [--repeat 5] [--partitions 1] [--json]

One producer process and one node over ipc, acks=all, idempotent, fsync before every ack. The same records in
every shape, in calls of 100,000. "calls" is the time on the processor that the caller's thread spends in
`send_many`, where the batches are made; "acked" the time until `flush` returns. Keys are 1,000 different ones
of 8 bytes. Reading: one consumer, `batches()`, each batch as `values`, `to_numpy()` or `to_arrow()`; the time
on the processor in the reader's thread, checks of the batch included.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from arguments import natural, positive

from tailrace.client.admin import Admin
from tailrace.consumer import Consumer
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.producer import Producer
from tailrace.testing import Cluster

KEYS = 1_000
CALL_RECORDS = 100_000
READERS: dict[str, Callable[[ColumnBatch], object]] = {
    "values": lambda batch: batch.values,
    "to_numpy": lambda batch: batch.to_numpy(),
    "to_arrow": lambda batch: batch.to_arrow(),
}
Shapes = dict[str, tuple[Sequence[Any], Sequence[Any]]]


def main() -> None:
    """Measure every shape and print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=positive, default=1_000_000)
    parser.add_argument("--bytes", type=natural, default=100, help="bytes a value")
    parser.add_argument("--partitions", type=positive, default=1)
    parser.add_argument("--repeat", type=positive, default=5, help="rounds; the median is shown")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.records < 2 * CALL_RECORDS:  # the first batch that is read is not measured
        parser.error(f"--records is {2 * CALL_RECORDS} or more")
    shapes = shapes_of(options.records, options.bytes)
    rates: dict[str, list[tuple[float, float]]] = {}
    reads: dict[str, list[float]] = {name: [] for name in READERS}
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t", partitions=options.partitions, config={"retention_bytes": 1 << 30})
            admin.create_topic("read")
        with Producer(cluster.bootstrap_servers) as producer:
            producer.send_many("read", *shapes["numpy"])
        for _ in range(options.repeat):
            for name, (values, keys) in shapes.items():
                for keyed in (False, True):
                    seconds = write(cluster, values, keys if keyed else None)
                    rate = (options.records / seconds[0], options.records / seconds[1])
                    rates.setdefault(f"{name}, keys" if keyed else name, []).append(rate)
            for name, rounds in reads.items():
                rounds.append(options.records / read(cluster, READERS[name], options.records))
    figures = {
        name: [median(column) for column in zip(*rounds, strict=True)] for name, rounds in rates.items()
    }
    read_figures = {name: median(rounds) for name, rounds in reads.items()}
    if options.json:
        about = {"records": options.records, "bytes": options.bytes, "partitions": options.partitions}
        print(json.dumps(about | {"calls_acked_per_s": figures, "read_per_s": read_figures}))
        return
    print(
        f"{options.records:,} records of {options.bytes} B, {options.partitions} partitions,"
        f" {platform.machine()}, {platform.python_version()}"
    )
    for name, (called, acked) in figures.items():
        base = figures["lists, keys" if "keys" in name else "lists"]
        print(
            f"{name:14}calls {called / 1e6:7.2f} M records/s (x {called / base[0]:5.2f})"
            f"   acked {acked / 1e6:6.2f} M records/s (x {acked / base[1]:5.2f})"
        )
    for name, rate in read_figures.items():
        print(f"read {name:9}{rate / 1e6:13.2f} M records/s (x {rate / read_figures['values']:5.2f})")


def shapes_of(count: int, size: int) -> Shapes:
    """The same values and keys as lists, numpy arrays and Arrow arrays."""
    values = np.random.default_rng(1).integers(0, 256, (count, size), np.uint8)
    keys = np.arange(count, dtype=np.int64) % KEYS
    value_list = [row.tobytes() for row in values]
    key_list = [key.tobytes() for key in keys]
    return {
        "lists": (value_list, key_list),
        "numpy": (values, keys),
        "Arrow": (pa.array(value_list, pa.binary()), pa.array(key_list, pa.binary())),
    }


def write(cluster: Cluster, values: Sequence[Any], keys: Sequence[Any] | None) -> tuple[float, float]:
    """Seconds on the processor in the calls, and those until all records are acknowledged."""
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send("t", b"").result(10)
        producer.send_many("t", values[:1], None if keys is None else keys[:1])  # imports what it needs
        started, used = time.perf_counter(), time.thread_time()
        for start in range(0, len(values), CALL_RECORDS):
            stop = start + CALL_RECORDS
            producer.send_many("t", values[start:stop], None if keys is None else keys[start:stop])
        used = time.thread_time() - used
        producer.flush()
        return used, time.perf_counter() - started


def read(cluster: Cluster, use: Callable[[ColumnBatch], object], records: int) -> float:
    """Seconds on the processor to read the topic "read"."""
    with Consumer(
        "read", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        batches = consumer.batches()
        first = next(batches)
        use(first)  # imports what it needs
        left = records - len(first)
        started = time.thread_time()
        while left:
            batch = next(batches)
            use(batch)
            left -= len(batch)
        return time.thread_time() - started


if __name__ == "__main__":
    main()
