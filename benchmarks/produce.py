"""One producer process and one node over ipc: records/s of `send` and `send_many`; medians.

    python benchmarks/produce.py [--records 1000000] [--bytes 100] [--repeat 5] [--partitions 1] [--json]

Acks=all, idempotent, fsync before every ack. Each round is a new producer; the clock runs from
the first call until `flush` returns, when everything is acknowledged. "calls" is the part of it in which
the application's thread was in `send` or `send_many`. Keys are 1,000 different ones; "sizes differ" has
values of up to 8 bytes less, "text" such of ASCII and "German" of other text, which is sent fastest where
numpy is loaded, as here.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from arguments import natural, positive

from tailrace.client.admin import Admin
from tailrace.producer import Producer
from tailrace.testing import Cluster

KEYS = 1_000
BULK_RECORDS = 50_000
"""Records a call of `send_many`."""
SIZES = 9
"""How many different sizes there are, where they differ."""


class Case(NamedTuple):
    """One way to write the values, which of them, with keys or without, and the producer's options."""

    name: str
    write: Callable[[Producer, Sequence[Any], Sequence[bytes] | None], None]
    keyed: bool = False
    compression: str | None = None
    values: str = "even"


def by_send(producer: Producer, values: Sequence[Any], keys: Sequence[bytes] | None) -> None:
    send = producer.send
    if keys is None:
        for value in values:
            send("t", value)
    else:
        for value, key in zip(values, keys, strict=True):
            send("t", value, key)


def by_send_many(producer: Producer, values: Sequence[Any], keys: Sequence[bytes] | None) -> None:
    for start in range(0, len(values), BULK_RECORDS):
        stop = start + BULK_RECORDS
        producer.send_many("t", values[start:stop], None if keys is None else keys[start:stop])


CASES = (
    Case("send_many", by_send_many),
    Case("send_many, keys", by_send_many, keyed=True),
    Case("send_many, lz4", by_send_many, compression="lz4"),
    Case("send_many, sizes differ", by_send_many, values="uneven"),
    Case("send_many, text", by_send_many, values="text"),
    Case("send_many, German", by_send_many, values="German"),
    Case("send", by_send),
    Case("send, keys", by_send, keyed=True),
)


def main() -> None:
    """Measure every case and print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=positive, default=1_000_000)
    parser.add_argument("--bytes", type=natural, default=100, help="bytes a value")
    parser.add_argument("--partitions", type=positive, default=1)
    parser.add_argument("--repeat", type=positive, default=5, help="rounds; the median is shown")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    values = values_of(options.records, options.bytes)
    keys = [b"key-%d" % (number % KEYS) for number in range(options.records)]
    calls: dict[str, list[float]] = {case.name: [] for case in CASES}
    total: dict[str, list[float]] = {case.name: [] for case in CASES}
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t", partitions=options.partitions, config={"retention_bytes": 1 << 30})
        for _ in range(options.repeat):
            for case in CASES:
                called_s, total_s = measure(cluster, case, values[case.values], keys if case.keyed else None)
                calls[case.name].append(options.records / called_s)
                total[case.name].append(options.records / total_s)
    figures = {name: median(rates) for name, rates in total.items()}
    if options.json:
        print(json.dumps({"records": options.records, "bytes": options.bytes, "records_per_s": figures}))
        return
    print(
        f"{options.records:,} records of {options.bytes} B, {platform.machine()},"
        f" {platform.python_version()}, numpy {np.__version__}"
    )
    for name, rate in figures.items():
        in_calls = median(calls[name])
        print(
            f"{name:24}{rate / 1e6:8.2f} M records/s {rate * options.bytes / 1e6:8.0f} MB/s"
            f"   calls {in_calls / 1e6:6.2f} M/s, {1e9 / in_calls:5.0f} ns a record"
        )


def values_of(count: int, size: int) -> dict[str, Sequence[Any]]:
    """The values by what they are; all of at most `size` bytes."""
    umlauts = "Größe "
    less = len(umlauts.encode())
    uneven = [b"%0*d" % (size - number % SIZES, number) for number in range(count)]
    return {
        "even": [b"%0*d" % (size, number) for number in range(count)],
        "uneven": uneven,
        "text": list(map(bytes.decode, uneven)),
        "German": [umlauts + value.decode()[less:] for value in uneven],
    }


def measure(
    cluster: Cluster, case: Case, values: Sequence[Any], keys: Sequence[bytes] | None
) -> tuple[float, float]:
    """Seconds in the calls, and until all records are acknowledged."""
    with Producer(cluster.bootstrap_servers, compression_type=case.compression) as producer:
        producer.send("t", b"").result(10)
        started = time.perf_counter()
        case.write(producer, values, keys)
        called = time.perf_counter()
        producer.flush()
        return called - started, time.perf_counter() - started


if __name__ == "__main__":
    main()
