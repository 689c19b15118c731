"""How the cost grows: partitions on a node, size of its log, consumers that wait.

    python benchmarks/growth.py [--gigabytes 1,5,20,50] [--partitions 1,10,100,1000] [--consumers 1,10,50,200]
                                [--seconds 4] [--write docs/performance.md]

One node, one producer (`send_many`, 100 B, an fsync before every acknowledgement), then one consumer of
everything (`batches()`), 1,000 records/s one by one for the latency, and single records that a consumer of
all partitions waits for. `--write` puts tables and plots into that page, the plots as files beside it. 50 GB
of log take some minutes, and the room on the disk.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from arguments import amount, output_file, positives

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.bench.plot import Series, chart, linear, logarithmic
from tailrace.node.storage.space import FRAGMENTATION_SHARE
from tailrace.testing import Cluster

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CHUNK = [b"x" * 100] * 20_000
RATE = 1_000
LATENCY_RECORDS = 2_000
TRICKLE_RECORDS = 1_000
LARGE = [os.urandom(100_000) for _ in range(10)]
GIGABYTE = 10**9
MEASURED_GB_S = 1.3
"""What measuring adds to a log in a second, at most."""
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
STYLE = (
    "<style>svg{background:#fff;font:12px sans-serif}.title{font-weight:bold;font-size:14px}"
    ".grid{stroke:#ddd}.axis{fill:#666}polyline{fill:none;stroke-width:2}"
    ".line-0{stroke:#1f77b4}.line-1{stroke:#d62728}.line-2{stroke:#2ca02c}</style>"
)
Row = dict[str, float]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_anon_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1_000


@contextmanager
def node(quota_bytes: int = 64 << 30) -> Iterator[tuple[Cluster, Admin, int]]:
    """A cluster of one node, and the node's pid."""
    with Cluster(quota_bytes=quota_bytes) as cluster, Admin(cluster.bootstrap_servers) as admin:
        yield cluster, admin, cluster.pid(1)


def produce(cluster: Cluster, topic: str, partitions: int, seconds: float) -> int:
    """Chunks to one partition after the other for so long; how many records."""
    sent = 0
    with Producer(cluster.bootstrap_servers) as producer:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            producer.send_many(topic, CHUNK, partition=(sent // len(CHUNK)) % partitions)
            sent += len(CHUNK)
    return sent


def consume(cluster: Cluster, topic: str, partitions: int, count: int) -> None:
    options: Any = {"bootstrap_servers": cluster.bootstrap_servers, "auto_offset_reset": "earliest"}
    with Consumer(**options) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        for batch in consumer.batches():
            count -= len(batch.values)
            if count <= 0:
                return


def latencies_us(cluster: Cluster, topic: str) -> list[float]:
    """From `send` until the acknowledgement is here, at RATE."""
    found = []
    with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
        due = time.monotonic()
        for _ in range(LATENCY_RECORDS):
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            started = time.perf_counter()
            producer.send(topic, CHUNK[0], partition=0).result(30)
            found.append((time.perf_counter() - started) * 1e6)
    return sorted(found)


def trickle_cpu_us(cluster: Cluster, pid: int, topic: str, partitions: int) -> float:
    """CPU of the node for a record that is stored, and fetched by a consumer of all partitions."""
    options: Any = {"bootstrap_servers": cluster.bootstrap_servers, "auto_offset_reset": "latest"}
    with Producer(cluster.bootstrap_servers, linger_ms=0) as producer, Consumer(**options) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        consumer.poll(timeout_ms=1_000)
        cpu = cpu_s(pid)
        for number in range(TRICKLE_RECORDS):
            producer.send(topic, CHUNK[0], partition=number % partitions)
            assert consumer.poll(timeout_ms=10_000), "the record has not come"
        return (cpu_s(pid) - cpu) / TRICKLE_RECORDS * 1e6


def measure(cluster: Cluster, pid: int, topic: str, partitions: int, seconds: float) -> Row:
    """Everything, for the cluster as it is."""
    cpu, started = cpu_s(pid), time.monotonic()
    sent = produce(cluster, topic, partitions, seconds)
    write_s, write_cpu = time.monotonic() - started, cpu_s(pid) - cpu
    cpu, started = cpu_s(pid), time.monotonic()
    consume(cluster, topic, partitions, sent)
    read_s, read_cpu = time.monotonic() - started, cpu_s(pid) - cpu
    late = latencies_us(cluster, topic)
    return {
        "written_m_s": sent / write_s / 1e6,
        "read_m_s": sent / read_s / 1e6,
        "write_cpu_s_per_m": write_cpu / sent * 1e6,
        "read_cpu_s_per_m": read_cpu / sent * 1e6,
        "ack_p50_us": statistics.median(late),
        "ack_p99_us": late[int(len(late) * 0.99)],
        "trickle_cpu_us": trickle_cpu_us(cluster, pid, topic, partitions),
        "rss_mb": rss_anon_mb(pid),
    }


def by_partitions(counts: list[int], seconds: float) -> dict[int, Row]:
    """A topic of so many partitions on one node, all of them written and read."""
    rows = {}
    for count in counts:
        with node() as (cluster, admin, pid):
            admin.create_topic("t", partitions=count)
            rows[count] = measure(cluster, pid, "t", count, seconds)
        show("partitions", count, rows[count])
    return rows


def quota_for(sizes: list[int], seconds: float) -> int:
    """Bytes of disk for a log of the largest size and all that is measured. Exits if they are not there."""
    live = (max(sizes) + len(sizes) * seconds * MEASURED_GB_S) * GIGABYTE
    quota = int(live * FRAGMENTATION_SHARE / (FRAGMENTATION_SHARE - 1))
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < quota:
        need, there = quota / GIGABYTE, free / GIGABYTE
        raise SystemExit(
            f"{folder} has {there:.0f} GB free, {need:.0f} are needed: make room, or fewer --gigabytes"
        )
    return quota


def by_gigabytes(sizes: list[int], seconds: float) -> dict[int, Row]:
    """One node whose log grows, in another topic than the one that is measured."""
    rows = {}
    with node(quota_bytes=quota_for(sizes, seconds)) as (cluster, admin, pid):
        admin.create_topic("ballast", partitions=4)
        filled = 0
        for size in sizes:
            with Producer(cluster.bootstrap_servers, batch_size=1 << 20) as producer:
                while filled < size * GIGABYTE:
                    producer.send_many("ballast", LARGE, partition=(filled // 10**8) % 4)
                    filled += sum(map(len, LARGE))
            topic = f"t{size}"
            admin.create_topic(topic)
            rows[size] = measure(cluster, pid, topic, 1, seconds)
            cluster.kill(1)
            started = time.monotonic()
            cluster.start(1)
            rows[size]["restart_s"] = time.monotonic() - started
            pid = cluster.pid(1)
            show("GB of log", size, rows[size])
    return rows


def by_consumers(counts: list[int], seconds: float) -> dict[int, Row]:
    """Consumers that wait at the end of another topic, each with a connection of its own."""
    rows = {}
    with node() as (cluster, admin, pid), ExitStack() as stack:
        admin.create_topic("quiet")
        waiting = 0
        for count in counts:
            while waiting < count:
                consumer = stack.enter_context(Consumer(bootstrap_servers=cluster.bootstrap_servers))
                consumer.assign([TopicPartition("quiet", 0)])
                consumer.poll(timeout_ms=0)
                waiting += 1
            topic = f"t{count}"
            admin.create_topic(topic)
            idle = cpu_s(pid)
            time.sleep(seconds)
            idle = (cpu_s(pid) - idle) / seconds
            rows[count] = measure(cluster, pid, topic, 1, seconds) | {"idle_cores": idle}
            show("waiting consumers", count, rows[count])
    return rows


def show(what: str, count: int, row: Row) -> None:
    print(f"{count:>6} {what}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)


COLUMNS: dict[str, tuple[str, str]] = {
    "written_m_s": ("written, M records/s", ".2f"),
    "read_m_s": ("read, M records/s", ".2f"),
    "write_cpu_s_per_m": ("node CPU, s/M written", ".3f"),
    "read_cpu_s_per_m": ("node CPU, s/M read", ".3f"),
    "ack_p50_us": ("ack p50, µs", ",.0f"),
    "ack_p99_us": ("ack p99, µs", ",.0f"),
    "trickle_cpu_us": ("node CPU a single record, µs", ",.0f"),
    "rss_mb": ("node RssAnon, MB", ".0f"),
    "restart_s": ("ready after kill -9, s", ".2f"),
    "idle_cores": ("node at rest, cores", ".4f"),
}


def table(what: str, rows: dict[int, Row]) -> str:
    keys = [key for key in COLUMNS if key in next(iter(rows.values()))]
    lines = [
        f"| {what} | " + " | ".join(COLUMNS[key][0] for key in keys) + " |",
        "|---:" * (len(keys) + 1) + "|",
    ]
    for count, row in rows.items():
        cells = (format(row[key], COLUMNS[key][1]) for key in keys)
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(what: str, rows: dict[int, Row]) -> str:
    """Records a second over the count, as an SVG file's text."""
    series = [
        Series(name, [(count, row[key]) for count, row in rows.items()])
        for name, key in (("written", "written_m_s"), ("read", "read_m_s"))
    ]
    most = max(value for each in series for _, value in each.points)
    x = logarithmic(what, min(rows), max(rows), lambda value: f"{value:,g}")
    y = linear("M records/s", most, lambda value: f"{value:g}")
    svg = chart(f"{what}: records a second", x, y, series)
    head, _, rest = svg.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def write(page: Path, parts: dict[str, tuple[str, dict[int, Row]]]) -> None:
    """Tables into the page, between its marks; plots beside it."""
    text = []
    for name, (what, rows) in parts.items():
        picture = page.with_name(f"growth-{name}.svg")
        picture.write_text(plot(what, rows))
        text.append(f"{table(what, rows)}\n\n![{what}]({picture.name})")
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n" + "\n\n".join(text) + f"\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--partitions", type=positives, default=[1, 10, 100, 1000])
    parser.add_argument("--gigabytes", type=positives, default=[1, 5, 20, 50])
    parser.add_argument("--consumers", type=positives, default=[1, 10, 50, 200])
    parser.add_argument("--seconds", type=amount, default=4)
    parser.add_argument("--write", type=output_file, metavar="PAGE")
    parser.add_argument("--json", type=output_file, metavar="FILE")
    arguments = parser.parse_args()
    measures: dict[str, tuple[str, Callable[[list[int], float], dict[int, Row]], list[int]]] = {
        "partitions": ("partitions on the node", by_partitions, arguments.partitions),
        "log": ("GB of log", by_gigabytes, arguments.gigabytes),
        "consumers": ("consumers that wait", by_consumers, arguments.consumers),
    }
    if arguments.write and not all(counts for *_, counts in measures.values()):
        parser.error("--write replaces all of the page's tables: measure all of them")
    if arguments.gigabytes:
        quota_for(arguments.gigabytes, arguments.seconds)  # before minutes are spent on the rest
    parts = {
        name: (what, run(counts, arguments.seconds))
        for name, (what, run, counts) in measures.items()
        if counts
    }
    if arguments.json:
        arguments.json.write_text(json.dumps({name: rows for name, (_, rows) in parts.items()}, indent=1))
    if arguments.write:
        write(arguments.write, parts)


if __name__ == "__main__":
    main()
