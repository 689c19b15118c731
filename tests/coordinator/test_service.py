"""The service: what one burst brings is stored, then published, then answered."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.machine import Machine, Settings
from tailrace.coordinator.service import Service
from tailrace.coordinator.state import State
from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.group_messages import (
    CommitOffsets,
    DescribeGroup,
    FetchOffsets,
    GroupAssigned,
    GroupHeartbeat,
    JoinGroup,
    OffsetCommit,
    OffsetsFetched,
)
from tailrace.protocol.messages import CreateTopic, Failed, InitProducer, RegisterNode, Request
from tailrace.protocol.wire import decode_reply, encode
from tailrace.transport.server import Incoming

LISTENER = Listener("tcp://127.0.0.1:1")


class Recorded:
    """Stores and sockets that write down what they are told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answers: list[bytes] = []

    def commit(self, *changes: Sequence[Any]) -> None:
        self.told.append("cluster" if len(changes) == 2 else "groups")

    def publish(self, _: bytes) -> None:
        self.told.append("publish")

    def reply(self, _peer: bytes, header: bytes) -> bool:
        self.told.append("answer")
        self.answers.append(header)
        return True


def service(recorded: Recorded) -> Service:
    machine = Machine(State("c"), GroupsState(), Settings(LISTENER, 6_000), 0.0)
    stores: Any = recorded
    return Service(machine, stores, stores, recorded.publish, recorded.reply)


def burst(*requests: Request) -> list[Incoming]:
    return [Incoming(f"peer-{at}".encode(), encode(each), []) for at, each in enumerate(requests)]


REGISTER = RegisterNode(1, node_id=1, listener=LISTENER, storage_id="s")
JOIN = JoinGroup(2, group_id="g", member_id="m", topics=("t",), session_timeout_ms=6_000)


def test_clusters_change_then_groups_then_all_hear_of_it() -> None:
    recorded = Recorded()
    service(recorded).serve(burst(JOIN, REGISTER, InitProducer(3)), 0.0, 0)
    assert recorded.told == ["cluster", "groups", "publish", *["answer"] * 3]


def test_what_changes_nothing_is_only_answered() -> None:
    recorded = Recorded()
    served = service(recorded)
    served.serve([Incoming(b"p", b"nonsense", [])], 0.0, 0)
    assert recorded.told == ["answer"]


def test_that_nobody_takes_its_answers_is_logged_once_a_peer(caplog: pytest.LogCaptureFixture) -> None:
    """A peer may have asked a thousand things before it went."""

    class Deaf(Recorded):
        def reply(self, _peer: bytes, _header: bytes) -> bool:
            return False

    caplog.set_level(logging.INFO)
    served = service(Deaf())
    for _ in range(3):
        served.serve(burst(InitProducer(1), InitProducer(2)), 0.0, 0)
    assert [record.getMessage() for record in caplog.records] == [
        f"peer {peer.hex()} is gone; its answers are dropped" for peer in (b"peer-0", b"peer-1")
    ]


def test_who_waits_is_answered_at_the_end() -> None:
    recorded = Recorded()
    served = service(recorded)
    served.serve(burst(JOIN), 0.0, 0)
    joined = decode_reply(recorded.answers[-1])
    assert isinstance(joined, GroupAssigned)
    beat = GroupHeartbeat(
        3, group_id="g", member_id="m", member_epoch=joined.member_epoch, owned=(), max_wait_ms=2_000
    )
    recorded.told.clear()
    served.serve(burst(beat), 0.0, 0)
    assert recorded.told == []
    served.stop()
    assert recorded.told == ["answer"]
    stopped = decode_reply(recorded.answers[-1])
    assert isinstance(stopped, Failed)
    assert stopped.error.code == ErrorCode.SHUTTING_DOWN


def test_an_answer_that_nobody_may_read_says_so() -> None:
    """Members that subscribe by pattern have many topics each."""
    recorded = Recorded()
    served = service(recorded)
    topics = tuple(f"warehouse.orders.line-items.{at:05}" for at in range(1_000))
    for at in range(120):
        served.serve(burst(replace(JOIN, member_id=f"m{at}", topics=topics)), 0.0, 0)
    served.serve(burst(DescribeGroup(9, group_id="g")), 0.0, 0)
    told = decode_reply(recorded.answers[-1])
    assert isinstance(told, Failed)
    assert (told.request_id, told.error.code) == (9, ErrorCode.LIMIT_EXCEEDED)


def test_a_commit_over_a_connection_that_has_ended_undoes_no_later_one() -> None:
    recorded = Recorded()
    served = service(recorded)
    topic = CreateTopic(1, name="t", partitions=1, replication_factor=1)
    served.serve(burst(REGISTER, topic), 0.0, 0)
    [topic_id] = served._machine.state.cluster.topics

    def commit(peer: bytes, offset: int) -> Incoming:
        return Incoming(
            peer, encode(CommitOffsets(9, group_id="g", offsets=(OffsetCommit(topic_id, 0, offset),))), []
        )

    recorded.told.clear()
    served.serve([commit(b"new", 8), commit(b"old", 7)], 0.0, 0, gone=[b"old"])
    assert recorded.told == ["groups", "answer"]
    served.serve(burst(FetchOffsets(10, group_id="g")), 0.0, 0)
    fetched = decode_reply(recorded.answers[-1])
    assert isinstance(fetched, OffsetsFetched)
    assert [each.offset for each in fetched.offsets] == [8]
