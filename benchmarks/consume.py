"""One consumer process and one node over ipc: records/s of `batches()`, `poll()` and iteration; medians.

    python benchmarks/consume.py [--records 2000000] [--bytes 100] [--repeat 5] [--json]

One partition, batches of `--batch` records. Each round reads the whole log, which lies in
the page cache, from its start with a new consumer; the clock runs from the first ask to the last record.
"batches" uses `.values` of each batch; "batches, keys" reads a log with keys, and uses both columns;
"offsets stored" keeps a local offset store with auto-commit.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from arguments import natural, positive

from tailrace.client.admin import Admin
from tailrace.client.engine import Engine
from tailrace.consumer import Consumer
from tailrace.protocol.columns import encode
from tailrace.protocol.messages import Produce, Produced, ProduceEntry
from tailrace.testing import Cluster

BATCHES_PER_REQUEST = 10


class Case(NamedTuple):
    """One way to read: gives how many records each step brought."""

    name: str
    topic: str
    steps: Callable[[Consumer], Iterator[int]]
    stored: bool = False


def by_batches(consumer: Consumer) -> Iterator[int]:
    for batch in consumer.batches():
        yield len(batch.values)


def by_batches_with_keys(consumer: Consumer) -> Iterator[int]:
    for batch in consumer.batches():
        assert len(batch.keys) == len(batch)
        yield len(batch.values)


def by_poll(consumer: Consumer) -> Iterator[int]:
    while True:
        for records in consumer.poll(timeout_ms=1_000).values():
            yield len(records)


def by_record(consumer: Consumer) -> Iterator[int]:
    for _ in consumer:
        yield 1


CASES = (
    Case("batches", "plain", by_batches),
    Case("batches, keys", "keyed", by_batches_with_keys),
    Case("poll", "plain", by_poll),
    Case("poll, keys", "keyed", by_poll),
    Case("poll, offsets stored", "plain", by_poll, stored=True),
    Case("iterate", "plain", by_record),
    Case("iterate, offsets stored", "plain", by_record, stored=True),
)


def main() -> None:
    """Measure every case and print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=positive, default=2_000_000)
    parser.add_argument("--bytes", type=natural, default=100, help="bytes a value")
    parser.add_argument("--batch", type=positive, default=1_000, help="records a batch")
    parser.add_argument("--repeat", type=positive, default=5, help="rounds; the median is shown")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.records % (step := BATCHES_PER_REQUEST * options.batch):
        parser.error(f"--records is a multiple of {step}: {BATCHES_PER_REQUEST} batches a request")
    with Cluster() as cluster:
        for topic in ("plain", "keyed"):
            fill(cluster, topic, options)
        rounds: dict[str, list[float]] = {case.name: [] for case in CASES}
        for _ in range(options.repeat):
            for case in CASES:
                rounds[case.name].append(options.records / measure(cluster, case, options.records))
    figures = {name: median(rates) for name, rates in rounds.items()}
    if options.json:
        print(json.dumps({"records": options.records, "bytes": options.bytes, "records_per_s": figures}))
        return
    print(
        f"{options.records:,} records of {options.bytes} B, {platform.machine()}, {platform.python_version()}"
    )
    for name, rate in figures.items():
        print(f"{name:26}{rate / 1e6:8.2f} M records/s {rate * options.bytes / 1e6:8.0f} MB/s")


def fill(cluster: Cluster, topic: str, options: argparse.Namespace) -> None:
    """Append the log to be read: whole batches, straight to the node."""
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic(topic)
    engine = Engine(cluster.bootstrap_servers, name="fill")
    engine.start()
    engine.ready(10)
    info = engine.wait_for_topic(topic, 10)
    leader = info.partitions[0]
    entry = ProduceEntry(info.topic_id, 0, leader.leader_epoch)
    values = [b"%0*d" % (options.bytes, number) for number in range(options.batch)]
    keys = [b"key-%d" % (number % 100) for number in range(options.batch)] if topic == "keyed" else None
    batch = encode(values, keys, timestamps=1_700_000_000_000)
    for _ in range(options.records // options.batch // BATCHES_PER_REQUEST):
        produce = lambda request_id: Produce(request_id, entries=[entry] * BATCHES_PER_REQUEST)  # noqa: E731
        reply, _ = engine.call(leader.leader, produce, [batch] * BATCHES_PER_REQUEST, timeout_s=30)
        assert isinstance(reply, Produced)
        assert all(result.error.code == 0 for result in reply.results), reply
    engine.close()


def measure(cluster: Cluster, case: Case, records: int) -> float:
    """Seconds for one consumer to read so many records."""
    with tempfile.TemporaryDirectory() as folder:
        consumer = Consumer(
            case.topic,
            bootstrap_servers=cluster.bootstrap_servers,
            auto_offset_reset="earliest",
            offset_store=folder if case.stored else None,
        )
        with consumer:
            started = time.perf_counter()
            left = records
            for count in case.steps(consumer):
                left -= count
                if left <= 0:
                    break
            return time.perf_counter() - started


if __name__ == "__main__":
    main()
