"""Three replicas on one machine: what acks=all costs, and what a follower that catches up costs the others.

    python benchmarks/replication.py [--seconds 5] [--gigabytes 1] [--json]

100 B records with `send_many` to one partition on three nodes, acks=all, an fsync before each replica says
that it has a record; the latency of single records at 1,000/s; failover from kill -9 of the leader to the
next acknowledgement; and the rate at which a follower that was away copies what it missed, with the produce
latency meanwhile beside that at rest.
"""

import argparse
import json
import statistics
import threading
import time

from arguments import amount

from tailrace import Admin, Producer
from tailrace.protocol.cluster import PartitionInfo
from tailrace.testing import Cluster

CHUNK = [b"x" * 100] * 20_000
LARGE = [b"y" * 100_000] * 10
RATE = 1_000
CONFIG: dict[str, str | int] = {"min_insync_replicas": 2}


def partition_of(admin: Admin, topic: str) -> PartitionInfo:
    """Partition 0 as the coordinator has it now."""
    return admin._engine.refresh(5).existing_topic(topic).partitions[0]


def throughput(cluster: Cluster, topic: str, seconds: float) -> float:
    """Records a second, acknowledged by all replicas."""
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send_many(topic, CHUNK)
        producer.flush()
        sent, started = 0, time.monotonic()
        while time.monotonic() < started + seconds:
            producer.send_many(topic, CHUNK)
            sent += len(CHUNK)
        producer.flush()
        return sent / (time.monotonic() - started)


def latencies_ms(cluster: Cluster, topic: str, stop: threading.Event, seconds: float) -> list[float]:
    """From when a record was due until it was acknowledged, at RATE, until `stop` or for so long."""
    found: list[float] = []

    def note(due: float) -> None:
        found.append((time.monotonic() - due) * 1000)

    with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
        started = time.monotonic()
        number = 0
        while not stop.is_set() and time.monotonic() < started + seconds:
            due = started + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            handle = producer.send(topic, CHUNK[0])
            handle.add_callback(lambda _, due=due: note(due))
            number += 1
    return sorted(found)


def percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


def failover_s(cluster: Cluster, admin: Admin, topic: str) -> float:
    """From kill -9 of the leader to the acknowledgement of a record that was sent after it."""
    leader = partition_of(admin, topic).leader
    with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
        producer.send(topic, b"before").result(10)
        started = time.monotonic()
        cluster.kill(leader)
        producer.send(topic, b"after").result(30)
        seconds = time.monotonic() - started
    cluster.start(leader)
    in_sync(admin, topic)
    return seconds


def in_sync(admin: Admin, topic: str) -> None:
    deadline = time.monotonic() + 300
    while len(partition_of(admin, topic).isr) < 3:
        assert time.monotonic() < deadline, "a replica does not come into sync"
        time.sleep(0.01)


def catch_up(cluster: Cluster, admin: Admin, gigabytes: float) -> dict[str, float]:
    """A follower is away while much is written; then it copies that, beside a paced load on another topic."""
    admin.create_topic("away", replication_factor=3, config=CONFIG)
    admin.create_topic("beside", replication_factor=3, config=CONFIG)
    at_rest = latencies_ms(cluster, "beside", threading.Event(), 4)
    info = partition_of(admin, "away")
    follower = next(n for n in info.replicas if n not in (info.leader, partition_of(admin, "beside").leader))
    cluster.kill(follower)
    size = int(gigabytes * 1e9)
    with Producer(cluster.bootstrap_servers, batch_size=1 << 20) as producer:
        for _ in range(size // 1_000_000):
            producer.send_many("away", LARGE)
    cluster.start(follower)
    stop, found = threading.Event(), list[float]()
    beside = threading.Thread(target=lambda: found.extend(latencies_ms(cluster, "beside", stop, 300)))
    started = time.monotonic()
    beside.start()
    in_sync(admin, "away")
    seconds = time.monotonic() - started
    stop.set()
    beside.join()
    return {
        "catch_up_mb_s": size / seconds / 1e6,
        "p99_at_rest_ms": percentile(at_rest, 0.99),
        "p99_meanwhile_ms": percentile(sorted(found), 0.99),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=amount, default=5)
    parser.add_argument("--gigabytes", type=amount, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with Cluster(nodes=3) as cluster, Admin(cluster.bootstrap_servers) as admin:
        # First: where free memory goes back to a host (`machine.py`), all is new again after `throughput`.
        caught_up = catch_up(cluster, admin, arguments.gigabytes)
        admin.create_topic("t", replication_factor=3, config=CONFIG)
        rate = throughput(cluster, "t", arguments.seconds)
        late = latencies_ms(cluster, "t", threading.Event(), arguments.seconds)
        failovers = [failover_s(cluster, admin, "t") for _ in range(3)]
        figures = {
            "send_many_m_s": rate / 1e6,
            "p50_ms": percentile(late, 0.5),
            "p99_ms": percentile(late, 0.99),
            "failover_s": statistics.median(failovers),
            **caught_up,
        }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:20} {value:10.2f}")


if __name__ == "__main__":
    main()
