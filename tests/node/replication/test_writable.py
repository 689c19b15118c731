"""When a leader with followers takes a batch or tells where its log ends, and when it says why not."""

from typing import Any

import pytest

from tailrace.node.leaders import Led
from tailrace.node.replication import replication as edge
from tailrace.node.replication.replication import Replication
from tailrace.node.work import PendingProduce
from tailrace.protocol.cluster import ClusterState, TopicChanged
from tailrace.protocol.errors import (
    BusyError,
    LeaderNotAvailableError,
    NotEnoughReplicasError,
    NotLeaderError,
)
from tailrace.protocol.messages import ACKS_ALL, ACKS_LEADER

from .conftest import KEY, LEASE_S, topic


def test_with_enough_replicas(replication: Replication, log: Any) -> None:
    replication.refuse_unwritable(log, ACKS_ALL, LEASE_S + 1)
    replication.refuse_unwritable(log, ACKS_LEADER, LEASE_S)


def test_with_too_few(replication: Replication, log: Any, cluster: ClusterState) -> None:
    cluster.apply(TopicChanged(topic(1, partition_epoch=1)))
    replication.follow_state(None, 0.0)
    with pytest.raises(NotEnoughReplicasError):
        replication.refuse_unwritable(log, ACKS_ALL, 0.0)
    replication.refuse_unwritable(log, ACKS_LEADER, 0.0)


def test_past_the_lease(replication: Replication, log: Any) -> None:
    replication.refuse_end(log, LEASE_S)
    with pytest.raises(LeaderNotAvailableError):
        replication.refuse_unwritable(log, ACKS_LEADER, LEASE_S + 1)
    with pytest.raises(LeaderNotAvailableError):
        replication.refuse_end(log, LEASE_S + 1)


def test_a_sole_replica_needs_no_lease(replication: Replication, log: Any) -> None:
    log.sole_replica = True
    replication.refuse_unwritable(log, ACKS_LEADER, LEASE_S + 1)
    replication.refuse_end(log, LEASE_S + 1)


def test_a_new_leader_that_does_not_know_what_is_committed_yet(replication: Replication, log: Any) -> None:
    log.epoch_start = 9
    with pytest.raises(LeaderNotAvailableError):
        replication.refuse_end(log, 0.0)


def test_too_many_wait(replication: Replication, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "WAITING_PRODUCES_MAX", 1)
    replication.waiting.add(PendingProduce(b"peer", 1, ACKS_ALL, []), {KEY: 1})
    with pytest.raises(BusyError):
        replication.refuse_unwritable(log, ACKS_ALL, 0.0)
    replication.waiting.advanced(KEY, 1)
    replication.refuse_unwritable(log, ACKS_ALL, 0.0)


def test_what_is_not_led(replication: Replication, log: Any) -> None:
    replication.resign([KEY])
    with pytest.raises(NotLeaderError):
        replication.refuse_unwritable(log, ACKS_ALL, 0.0)


def test_states_that_follow_each_other_do_not_put_off_the_look_at_followers(
    replication: Replication, log: Any
) -> None:
    due = replication.next_tick(0.0)
    replication.lead({KEY: Led(log, 4)}, due - 0.01)
    assert replication.next_tick(0.0) == due
