"""Consumer groups: who gets what, a large group that comes to rest, and committed offsets.

    python benchmarks/groups.py [--seconds 5] [--repeat 3] [--json]

"assign" is the uniform assignor alone, with 1,000 members and 10,000 partitions of 10 topics: all
new, and again when one member has left. "join" runs from the first of 100 members' joins to a real
coordinator until every one of 1,000 partitions is in one member's hands and all have ten. "commits" are
partitions a second through one coordinator: 4 processes, each a member of a group of its own that
commits 10 partitions a request, one request on its way, durable before it is answered.
"""

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from arguments import amount, positive

from tailrace import Admin
from tailrace.client.engine import COORDINATOR, Engine
from tailrace.coordinator.groups.assignors import Target, Wish, uniform
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.group_messages import (
    CommitOffsets,
    GroupAssigned,
    GroupHeartbeat,
    JoinGroup,
    OffsetCommit,
    OffsetsCommitted,
    PartitionSet,
)
from tailrace.protocol.messages import Reply
from tailrace.testing import Cluster

MEMBERS = 100
PARTITIONS = 1_000
CLIENTS = 4
PARTITIONS_A_COMMIT = 10
SESSION_TIMEOUT_MS = 60_000
PATIENCE_S = 120.0


def assign() -> dict[str, float]:
    """Seconds of one call each."""
    topics = [bytes([number]) * 16 for number in range(10)]
    counts = dict.fromkeys(topics, 1_000)
    names = [f"member-{number:04}" for number in range(1_000)]

    def wishes(target: Target) -> dict[str, Wish]:
        held = dict.fromkeys(names, frozenset()) | target
        return {name: Wish(name, frozenset(topics), held[name]) for name in names}

    started = time.perf_counter()
    target = uniform(wishes({}), counts)
    first_s = time.perf_counter() - started
    del target[names.pop()]
    started = time.perf_counter()
    target = uniform(wishes(target), counts)
    return {"assign_first_s": first_s, "assign_again_s": time.perf_counter() - started}


class Member:
    """A member that gives up at once what it has to. Everything in the I/O thread."""

    def __init__(self, engine: Engine, number: int, moved: Callable[[], None]) -> None:
        self._engine = engine
        self._id = f"member-{number:03}"
        self._moved = moved
        self._epoch = -1
        self._owned: PartitionSet = ()
        self.stopped = False

    def partitions(self) -> set[int]:
        return {partition for topic in self._owned for partition in topic.partitions}

    def join(self) -> None:
        self._engine.request(
            COORDINATOR,
            lambda request_id: JoinGroup(
                request_id,
                group_id="join",
                member_id=self._id,
                topics=("join",),
                session_timeout_ms=SESSION_TIMEOUT_MS,
            ),
            on_reply=self._told,
        )

    def _heartbeat(self) -> None:
        self._engine.request(
            COORDINATOR,
            lambda request_id: GroupHeartbeat(
                request_id,
                group_id="join",
                member_id=self._id,
                member_epoch=self._epoch,
                owned=self._owned,
                max_wait_ms=SESSION_TIMEOUT_MS // 3,
            ),
            on_reply=self._told,
        )

    def _told(self, reply: Reply | TailraceError, _frames: list[bytes]) -> None:
        if self.stopped:
            return
        assert isinstance(reply, GroupAssigned), reply
        self._epoch, self._owned = reply.member_epoch, reply.assigned
        self._moved()
        self._heartbeat()


def join(bootstrap_servers: str) -> float:
    """Seconds until the group is at rest."""
    engine = Engine(bootstrap_servers, name="join")
    engine.start()
    engine.wait_for_topic("join", PATIENCE_S)
    settled = threading.Event()
    members: list[Member] = []

    def look() -> None:
        held = [member.partitions() for member in members]
        even = all(len(partitions) == PARTITIONS // MEMBERS for partitions in held)
        if even and len(set().union(*held)) == PARTITIONS:
            settled.set()

    members += [Member(engine, number, look) for number in range(MEMBERS)]
    started = time.perf_counter()
    for member in members:
        engine.submit(member.join)
    if not settled.wait(PATIENCE_S):
        raise TimeoutError(f"the group does not come to rest in {PATIENCE_S:.0f} s")
    took = time.perf_counter() - started
    for member in members:
        member.stopped = True
    engine.close()
    return took


def commit(bootstrap_servers: str, number: int, seconds: float, barrier: Any, result: Any) -> None:
    """How many partitions a second one client commits, put into `result`."""
    group_id, member_id = f"commit-{number}", f"committer-{number}"
    engine = Engine(bootstrap_servers, name=group_id)
    engine.start()
    topic = engine.wait_for_topic("commits", PATIENCE_S)
    joined, _ = engine.call(
        COORDINATOR,
        lambda request_id: JoinGroup(
            request_id,
            group_id=group_id,
            member_id=member_id,
            topics=("commits",),
            session_timeout_ms=SESSION_TIMEOUT_MS,
        ),
        timeout_s=PATIENCE_S,
    )
    assert isinstance(joined, GroupAssigned)
    barrier.wait()
    done = threading.Event()
    requests = 0
    end = time.perf_counter() + seconds

    def send() -> None:
        offsets = tuple(OffsetCommit(topic.topic_id, p, requests) for p in range(PARTITIONS_A_COMMIT))
        engine.request(
            COORDINATOR,
            lambda request_id: CommitOffsets(
                request_id,
                group_id=group_id,
                member_id=member_id,
                member_epoch=joined.member_epoch,
                offsets=offsets,
            ),
            on_reply=committed,
        )

    def committed(reply: Reply | TailraceError, _frames: list[bytes]) -> None:
        nonlocal requests
        assert isinstance(reply, OffsetsCommitted), reply
        assert not reply.errors
        requests += 1
        if time.perf_counter() < end:
            send()
        else:
            done.set()

    engine.submit(send)
    if not done.wait(seconds + PATIENCE_S):
        raise TimeoutError("no answer to a commit")
    engine.close()
    result.put(requests * PARTITIONS_A_COMMIT / seconds)


def commits(bootstrap_servers: str, seconds: float) -> float:
    """Partitions a second by all clients together."""
    spawn = multiprocessing.get_context("spawn")
    barrier, result = spawn.Barrier(CLIENTS), spawn.Queue()
    clients = [
        spawn.Process(target=commit, args=(bootstrap_servers, number, seconds, barrier, result))
        for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    total = sum(result.get(timeout=seconds + 2 * PATIENCE_S) for _ in clients)
    for client in clients:
        client.join()
    return float(total)


def measure(seconds: float) -> dict[str, float]:
    """One round."""
    figures = assign()
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("join", partitions=PARTITIONS)
            admin.create_topic("commits", partitions=PARTITIONS_A_COMMIT)
        figures["join_s"] = join(cluster.bootstrap_servers)
        figures["commits_partitions_per_s"] = commits(cluster.bootstrap_servers, seconds)
    return figures


def main() -> None:
    """Print the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=amount, default=5, help="of committing")
    parser.add_argument("--repeat", type=positive, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = [measure(options.seconds) for _ in range(options.repeat)]
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26}{value:12.2f}")


if __name__ == "__main__":
    main()
