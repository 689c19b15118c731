"""How long partitions pause while members of their group come, leave and die.

    python benchmarks/rebalance.py [--rounds 5] [--json]

Four members share 12 partitions, each of which gets a record every 2 ms. In every round one member is
killed (SIGKILL) and replaced, then one leaves and is replaced. A record's delay runs from `send` to a
member's hands. "kept": of records in partitions that stayed where they were since the record before;
"moved": of the first records after a move, so the pause of those that are concerned. "still" are the delays
before anything happens: what the machine does to them without any rebalance.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from typing import Any

from arguments import positive

from tailrace import Admin, Consumer, Producer, RebalanceListener, TopicPartition
from tailrace.testing import Cluster

MEMBERS = 4
PARTITIONS = 12
PACE_S = 0.002
STILL_S = 3.0
PATIENCE_S = 60.0
TOPIC = "moving"

spawn = multiprocessing.get_context("spawn")


class Moves(RebalanceListener):
    """Tells which partitions have come since their last record."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.fresh: set[int] = set()

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        came = {partition.partition for partition in partitions}
        self.held |= came
        self.fresh |= came

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.held -= {partition.partition for partition in partitions}

    on_lost = on_revoked


def member(bootstrap_servers: str, pipe: Connection) -> None:
    """Reads until SIGTERM; tells ("held", partitions), at the end ("delays", [(sent, delay_s, moved)])."""
    moves = Moves()
    delays: list[tuple[float, float, bool]] = []
    stopping = threading.Event()
    with Consumer(bootstrap_servers=bootstrap_servers, group_id="moving") as consumer:

        def stop(*_: object) -> None:
            stopping.set()
            consumer.wakeup()

        signal.signal(signal.SIGTERM, stop)
        consumer.subscribe([TOPIC], listener=moves)
        told: set[int] = set()
        while not stopping.is_set():
            if moves.held != told:
                told = set(moves.held)
                pipe.send(("held", told))
            for name, records in consumer.poll(timeout_ms=100).items():
                now = time.monotonic()
                for record in records:
                    sent = float(record.value)
                    delays.append((sent, now - sent, name.partition in moves.fresh))
                moves.fresh.discard(name.partition)
    pipe.send(("delays", delays))


class Member:
    """A member's process, what it holds, and at its end what it has seen."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._pipe, child = spawn.Pipe()
        self.process = spawn.Process(target=member, args=(bootstrap_servers, child))
        self.process.start()
        child.close()
        self.held: set[int] = set()
        self.delays: list[tuple[float, float, bool]] = []

    def listen(self) -> None:
        """Take in what it has said."""
        while self._pipe.poll():
            what, content = self._pipe.recv()
            setattr(self, what, content)

    def kill(self) -> None:
        """At once."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def leave(self) -> None:
        """Cleanly."""
        self.process.terminate()
        deadline = time.monotonic() + PATIENCE_S
        while not self.delays and time.monotonic() < deadline:
            try:
                self.listen()
            except EOFError:
                break
            time.sleep(0.001)
        self.process.join()


def settled(members: list[Member]) -> None:
    """Wait until every partition is one member's, evenly."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for one in members:
            one.listen()
        held = [one.held for one in members]
        if all(len(each) == PARTITIONS // MEMBERS for each in held) and len(set().union(*held)) == PARTITIONS:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the group does not come to rest: {held}")
        time.sleep(0.001)


def feed(bootstrap_servers: str, over: threading.Event) -> None:
    """A record to each partition at a steady pace."""
    with Producer(bootstrap_servers, linger_ms=0) as producer:
        while not over.wait(PACE_S):
            now = repr(time.monotonic()).encode()
            for partition in range(PARTITIONS):
                producer.send(TOPIC, now, partition=partition)


def measure(rounds: int) -> dict[str, float]:
    """Delays in milliseconds."""
    with Cluster() as cluster:
        servers = cluster.bootstrap_servers
        with Admin(servers) as admin:
            admin.create_topic(TOPIC, partitions=PARTITIONS)
        members = [Member(servers) for _ in range(MEMBERS)]
        settled(members)
        over = threading.Event()
        feeder = threading.Thread(target=feed, args=(servers, over))
        feeder.start()
        time.sleep(STILL_S)
        moving_from = time.monotonic()
        gone: list[Member] = []
        for _ in range(rounds):
            for end in (Member.kill, Member.leave):
                end(members[-1])
                gone.append(members[-1])
                members[-1] = Member(servers)
                settled(members)
        over.set()
        feeder.join()
        for one in members:
            one.leave()
    seen = [delay for one in (*members, *gone) for delay in one.delays]
    still = [delay for sent, delay, moved in seen if sent < moving_from and not moved]
    kept = [delay for sent, delay, moved in seen if sent >= moving_from and not moved]
    moved = [delay for sent, delay, moved in seen if sent >= moving_from and moved]
    kinds = {"still": still, "kept": kept, "moved": moved}
    return {
        f"{name}_{what}_ms": figure for name, delays in kinds.items() for what, figure in _figures(delays)
    }


def _figures(delays: list[float]) -> list[tuple[str, float]]:
    ordered = sorted(delays)
    return [
        ("p50", statistics.median(ordered) * 1000),
        ("p99", ordered[int(len(ordered) * 0.99)] * 1000),
        ("max", ordered[-1] * 1000),
    ]


def main() -> None:
    """Print the delays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5, help="of a kill and a leave")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:16}{value:10.1f}")


if __name__ == "__main__":
    main()
