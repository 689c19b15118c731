"""Consumer groups of real processes: members that come, go, die and fight; a coordinator that dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.protocol.errors import (
    ClosedError,
    FencedMemberError,
    GroupNotEmptyError,
    TailraceError,
    TimedOutError,
)
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended

MEMBER = Path(__file__).with_name("group_member.py")
_groups = count(1)


class Member:
    """A member's process, and all that it has said."""

    def __init__(self, cluster: Cluster, topic: str, group_id: str, **options: Any) -> None:
        spec = {
            "bootstrap_servers": cluster.bootstrap_servers,
            "topics": [topic],
            "group_id": group_id,
            **options,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(MEMBER), json.dumps(spec)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.events: list[dict[str, Any]] = []
        self._errors = b""
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line) | {"at": time.monotonic()})

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors = self.process.stderr.read()

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, event: str) -> list[dict[str, Any]]:
        return [each for each in list(self.events) if each["event"] == event]

    def held(self) -> set[int]:
        """What it has according to what it said."""
        held: set[int] = set()
        for each in list(self.events):
            if each["event"] == "assigned":
                held |= set(each["partitions"])
            elif each["event"] in ("revoked", "lost"):
                held -= set(each["partitions"])
        return held

    def ready(self) -> "Member":
        wait_until(lambda: self.said("ready") or self.process.poll() is not None, "a member is ready")
        assert self.said("ready"), (self.events, self._errors)
        return self

    def stop(self) -> None:
        """A clean end."""
        self.process.terminate()
        self.end()
        assert self.said("ended"), (self.events[-3:], self._errors)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()


Start = Callable[..., Member]


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Start]:
    """Starts members of `cluster`, or of the cluster that is given."""
    members: list[Member] = []

    def start(topic: str, group_id: str, *, of: Cluster = cluster, **options: Any) -> Member:
        member = Member(of, topic, group_id, **options)
        members.append(member)
        return member

    yield start
    for member in members:
        if member.process.poll() is None:
            member.process.kill()
        member.end()
        for stream in (member.process.stdout, member.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def group_id() -> str:
    return f"group-{next(_groups)}"


def produce(cluster: Cluster, topic: str, partitions: int, values: range) -> None:
    """Each value to partition `value % partitions`."""
    with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
        for value in values:
            producer.send(topic, str(value).encode(), partition=value % partitions)


def values_of(*members: Member) -> list[int]:
    return [int(value) for m in members for each in m.said("records") for _, value in each["records"]]


def settled(members: list[Member], partitions: int) -> bool:
    """Every partition is one member's, and they share evenly."""
    held = [member.held() for member in members]
    counts = [len(each) for each in held]
    return (
        sorted(p for each in held for p in each) == list(range(partitions)) and max(counts) - min(counts) <= 1
    )


def test_a_killed_member_is_replaced_at_once(
    cluster: Cluster, topic: MakeTopic, start: Start, group_id: str
) -> None:
    name = topic(4)
    one = start(name, group_id, session_timeout_ms=600_000).ready()
    two = start(name, group_id, session_timeout_ms=600_000).ready()
    wait_until(lambda: settled([one, two], 4), "two members share")
    one.kill()  # its session would last ten minutes
    wait_until(lambda: two.held() == set(range(4)), "the other has all")
    produce(cluster, name, 4, range(40))
    wait_until(lambda: sorted(values_of(two)) == list(range(40)), "it reads all")
    two.stop()


def test_a_suspended_member_is_replaced_after_its_time_out_and_finds_itself_fenced(
    cluster: Cluster, topic: MakeTopic, start: Start, group_id: str
) -> None:
    name = topic(4)
    one = start(name, group_id, session_timeout_ms=1_000).ready()
    two = start(name, group_id, session_timeout_ms=1_000).ready()
    wait_until(lambda: settled([one, two], 4), "two members share")
    with suspended(one.pid):
        wait_until(lambda: two.held() == set(range(4)), "the other has all")
    wait_until(lambda: one.said("lost"), "it hears that it has lost everything")
    wait_until(lambda: settled([one, two], 4), "it is back, and they share")
    one.stop()
    two.stop()


def test_a_static_member_that_is_restarted_moves_nothing(
    cluster: Cluster, topic: MakeTopic, start: Start, group_id: str
) -> None:
    name = topic(4)
    options = {"session_timeout_ms": 600_000}
    one = start(name, group_id, group_instance_id="one", **options).ready()
    two = start(name, group_id, group_instance_id="two", **options).ready()
    wait_until(lambda: settled([one, two], 4), "two members share")
    had, others = one.held(), two.held()
    one.kill()
    again = start(name, group_id, group_instance_id="one", **options).ready()
    wait_until(lambda: again.held() == had, "it has what it had")
    produce(cluster, name, 4, range(40))
    wait_until(lambda: sorted(values_of(again, two)) == list(range(40)), "all is read")
    assert two.held() == others
    assert not two.said("revoked")
    again.stop()
    two.stop()


@pytest.mark.slow
def test_two_that_want_to_be_the_same_instance(
    cluster: Cluster, topic: MakeTopic, start: Start, group_id: str
) -> None:
    name = topic(2)
    first = start(name, group_id, group_instance_id="the-one", client_id="first").ready()
    second = start(name, group_id, group_instance_id="the-one", client_id="second")
    second.end()
    (failed,) = second.said("failed")
    assert failed["kind"] == "InstanceIdInUseError"
    assert "'the-one'" in failed["message"]
    assert "client first" in failed["message"]
    produce(cluster, name, 2, range(10))
    wait_until(lambda: sorted(values_of(first)) == list(range(10)), "the first reads on")
    assert not first.said("lost")
    first.stop()


def test_who_is_not_concerned_reads_on(
    cluster: Cluster, topic: MakeTopic, start: Start, group_id: str, admin: Admin
) -> None:
    """A member that does not give up its partition holds up only who is to have it."""
    name = topic(3)
    members = [start(name, group_id, session_timeout_ms=600_000).ready() for _ in range(2)]
    wait_until(lambda: settled(members, 3), "two members share")
    other, slow = sorted(members, key=lambda member: len(member.held()))
    (kept,) = other.held()

    def is_moving() -> bool:
        group = admin.describe_group(group_id)
        return len(group.members) == 3 and group.state == "reconciling"

    with suspended(slow.pid):
        newcomer = start(name, group_id, session_timeout_ms=600_000)
        wait_until(is_moving, "a third one comes")
        with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
            for _ in range(100):
                producer.send(name, repr(time.monotonic()).encode(), partition=kept).result(PATIENCE_S)
        wait_until(lambda: len(read_by(other)) == 100, "it reads meanwhile")
        assert is_moving()
        assert newcomer.held() == set()
    assert max(at - sent for at, sent in read_by(other)) < BUSY_S
    wait_until(lambda: settled([*members, newcomer], 3), "three members share")
    assert other.held() == {kept}
    assert not other.said("revoked")
    for member in (*members, newcomer):
        member.stop()


def read_by(member: Member) -> list[tuple[float, float]]:
    """When it told of each record, and when that was sent."""
    return [(each["at"], float(value)) for each in member.said("records") for _, value in each["records"]]


def test_rolling_restart_under_load(cluster: Cluster, topic: MakeTopic, start: Start, group_id: str) -> None:
    """Every record once, since members leave cleanly; in order, though partitions move."""
    partitions, total = 12, 6_000
    name = topic(partitions)
    members = [start(name, group_id).ready() for _ in range(4)]
    wait_until(lambda: settled(members, partitions), "four members share")
    done = list(members)
    feeder = threading.Thread(target=feed, args=(cluster, name, partitions, total))
    feeder.start()
    for place in range(4):
        members[place].stop()
        members[place] = start(name, group_id).ready()
        done.append(members[place])
        wait_until(lambda: settled(members, partitions), "four members share again")
    feeder.join()
    wait_until(lambda: len(values_of(*done)) >= total, "all is read")
    for member in members:
        member.stop()
    counts = Counter(values_of(*done))
    assert sorted(counts) == list(range(total))
    assert [value for value, times in counts.items() if times > 1] == []
    in_order(done)


def feed(cluster: Cluster, topic: str, partitions: int, total: int) -> None:
    with Producer(cluster.bootstrap_servers) as producer:
        for value in range(total):
            producer.send(topic, str(value).encode(), partition=value % partitions)
            if value % 100 == 99:
                producer.flush()
                time.sleep(0.02)  # a pace, so that the load lasts as long as the restarts


def in_order(members: list[Member]) -> None:
    """In the order in which they were read, the offsets of a partition ascend."""
    read = sorted(
        (each["at"], each["partition"], each["records"]) for m in members for each in m.said("records")
    )
    last: dict[int, int] = {}
    for _, partition, records in read:
        for offset, _ in records:
            assert offset > last.get(partition, -1), (partition, offset)
            last[partition] = offset


def test_the_coordinator_is_killed_under_load(start: Start, group_id: str) -> None:
    """Members read on while it is away, and nothing is lost; commits go on when it is back."""
    partitions, total = 4, 2_000
    with Cluster(nodes=1) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("load", partitions)
        members = [start("load", group_id, of=cluster).ready() for _ in range(2)]
        wait_until(lambda: settled(members, partitions), "two members share")
        with Producer(cluster.bootstrap_servers) as producer:
            for value in range(total // 2):
                producer.send("load", str(value).encode(), partition=value % partitions)
            producer.flush()
            wait_until(lambda: len(values_of(*members)) >= total // 2, "the first half is read")
            cluster.kill_coordinator()
            for value in range(total // 2, total):
                producer.send("load", str(value).encode(), partition=value % partitions)
            producer.flush()
            wait_until(lambda: len(values_of(*members)) >= total, "the second half is read without it")
        cluster.start_coordinator()
        held = [member.held() for member in members]
        for member in members:
            member.stop()
        assert [member.held() for member in members] == [set(), set()]
        assert sum(map(len, held)) == partitions
        assert Counter(values_of(*members)) == Counter(range(total))
        again = start("load", group_id, of=cluster).ready()
        with Producer(cluster.bootstrap_servers) as producer:
            producer.send("load", str(total).encode(), partition=0)
        wait_until(lambda: values_of(again), "the next member goes on")
        assert values_of(again) == [total], "what was committed after the restart is not read again"
        again.stop()


def test_a_member_after_a_fork_is_of_no_use_to_the_child(
    cluster: Cluster, topic: MakeTopic, group_id: str
) -> None:
    name = topic(2)
    with Consumer(name, bootstrap_servers=cluster.bootstrap_servers, group_id=group_id) as consumer:
        child = os.fork()
        if child == 0:
            try:
                consumer.poll(0)
            except ClosedError:
                consumer.close()  # and the parent stays a member
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        produce(cluster, name, 2, range(1))
        assert [r.value for records in consumer.poll(PATIENCE_S * 1_000).values() for r in records] == [b"0"]
        consumer.commit()


def test_a_member_that_was_replaced_may_not_commit(cluster: Cluster, topic: MakeTopic, group_id: str) -> None:
    name = topic(1)
    produce(cluster, name, 1, range(2))
    options: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "group_id": group_id,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }
    place = TopicPartition(name, 0)
    with Consumer(name, client_id="old", max_poll_interval_ms=100, **options) as old:
        assert old.poll(PATIENCE_S * 1_000)
        with Consumer(name, client_id="new", **options) as new:
            wait_until(lambda: new.poll(10) or new.assignment(), "the other has it")
            with pytest.raises(FencedMemberError, match="no member of group"):
                old.commit()
            with Consumer(**options) as outsider:
                outsider.assign([place])
                with pytest.raises(GroupNotEmptyError, match="1 member"):
                    outsider.commit({place: 1})
            assert new.committed(place) is None
            new.commit({place: 2})
        # The group is empty now: still the old one is no standalone consumer.
        with pytest.raises(FencedMemberError, match="no member of group"):
            old.commit()
    with Consumer(**options) as outsider:
        outsider.assign([place])
        assert outsider.committed(place) == 2


def test_signal_interrupts_a_group_poll(cluster: Cluster, topic: MakeTopic, group_id: str) -> None:
    name = topic(1)
    with Consumer(name, bootstrap_servers=cluster.bootstrap_servers, group_id=group_id) as consumer:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            timer.start()
            consumer.poll(timeout_ms=None)
        timer.join()
        produce(cluster, name, 1, range(1))
        assert consumer.poll(PATIENCE_S * 1_000)


@pytest.mark.parametrize("kind", ["assigned", "member", "static member"])
def test_close_waits_for_commits_that_are_on_their_way(
    cluster: Cluster, topic: MakeTopic, group_id: str, kind: str
) -> None:
    name = topic(2)
    places = [TopicPartition(name, number) for number in range(2)]
    errors: list[TailraceError | None] = []
    with Consumer(
        bootstrap_servers=cluster.bootstrap_servers,
        group_id=group_id,
        group_instance_id="one" if kind == "static member" else None,
        enable_auto_commit=False,
    ) as consumer:
        if kind == "assigned":
            consumer.assign(places)
        else:
            consumer.subscribe(name)
        consumer.commit_async({places[0]: 1}, errors.append)
        consumer.commit_async({places[1]: 2})
    assert errors == [None]
    with Consumer(bootstrap_servers=cluster.bootstrap_servers, group_id=group_id) as other:
        assert [other.committed(place) for place in places] == [1, 2]


def test_close_does_not_wait_for_ever_for_a_commit(group_id: str, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[TailraceError | None] = []
    with Cluster() as own:
        with Admin(own.bootstrap_servers) as admin:
            admin.create_topic("t")
        consumer = Consumer(
            bootstrap_servers=own.bootstrap_servers,
            group_id=group_id,
            enable_auto_commit=False,
            request_timeout_ms=500,
        )
        consumer.assign([TopicPartition("t", 0)])
        with suspended(own.coordinator_pid):
            started = time.monotonic()
            consumer.commit_async({TopicPartition("t", 0): 1}, errors.append)
            consumer.close()
            assert time.monotonic() - started < BUSY_S
    assert [type(error) for error in errors] == [TimedOutError]
