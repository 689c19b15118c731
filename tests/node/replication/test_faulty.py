"""What becomes of a faulty log, step by step."""

from math import inf
from types import SimpleNamespace
from typing import Any

from tailrace.node.actions import Follow
from tailrace.node.following import Following
from tailrace.node.leaders import Leaders
from tailrace.node.replication.faulty import FaultyLogs
from tailrace.node.work import Prepare
from tailrace.protocol.cluster import ClusterState, PartitionInfo, TopicChanged, TopicConfig, TopicInfo

KEY = (bytes(16), 0)


def log(*, sole: bool = False) -> Any:
    return SimpleNamespace(key=KEY, sole_replica=sole)


def test_it_is_asked_for_until_it_is_out_and_over_once_there_is_another() -> None:
    faulty, first, second = FaultyLogs(), log(), log()
    assert faulty.next_tick() == inf
    assert faulty.found(first)
    assert not faulty.found(first)
    assert faulty.holds(first)
    assert faulty.next_tick() == -inf
    assert faulty.ask(1.0) == [KEY]
    assert (faulty.ask(2.0), faulty.next_tick()) == ([], inf)
    faulty.answered(KEY, out_from=None, ask_at=3.0)
    assert (faulty.ask(2.9), faulty.next_tick()) == ([], 3.0)
    assert faulty.ask(3.0) == [KEY]
    assert faulty.out == {}
    faulty.answered(KEY, out_from=7, ask_at=inf)
    assert faulty.out == {KEY: 7}
    faulty.renewed([KEY])
    assert (faulty.out, faulty.ask(9.0), faulty.holds(first)) == ({}, [], True)
    assert not faulty.holds(second)
    assert not faulty.holds(first)
    assert faulty.found(second)


def test_a_sole_replica_stays_as_it_is() -> None:
    faulty = FaultyLogs()
    assert not faulty.found(log(sole=True))
    assert faulty.ask(1.0) == []


def test_it_is_not_made_anew_before_the_node_has_heard_that_it_is_out() -> None:
    """In an epoch before it may have to lead, and others cut their logs to what it has."""
    cluster, prepared = ClusterState(), list[Prepare]()
    membership: Any = SimpleNamespace(cluster=cluster, held_topics=set(), controller_epoch=1)
    writer: Any = SimpleNamespace(submit=prepared.append)
    storage: Any = SimpleNamespace(logs={})
    following = Following(1, membership, Leaders(), writer, storage)

    def hear(leader: int, leader_epoch: int, isr: tuple[int, ...]) -> None:
        info = PartitionInfo((1, 2), leader, leader_epoch, leader_epoch, isr)
        cluster.apply(TopicChanged(TopicInfo(KEY[0], "t", TopicConfig(), (info,))))
        following.follow(Follow(None, frozenset()))
        prepared.clear()

    hear(2, 4, (1, 2))
    assert following.renew({KEY: 6}) == [], "it may be told to lead in epoch 5"
    hear(1, 5, (1, 2))
    assert following.renew({KEY: 6}) == []
    assert prepared == []
    hear(2, 6, (2,))
    assert following.renew({KEY: 6}) == [KEY]
    assert [prepare.renew for prepare in prepared] == [[KEY]]
