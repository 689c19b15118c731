"""Nodes that were killed or changed, and unclean elections: who may lead, and what is said."""

import pytest

from tailrace.coordinator.handlers import alter_topic
from tailrace.coordinator.state import State
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.messages import AlterTopic

from .test_handlers import accept, create, kill, register

TOPIC = b"t" + b"-" * 15


@pytest.fixture
def state() -> State:
    state = State("cluster")
    for node_id in (1, 2, 3):
        register(state, node_id)
    return state


def partition(state: State) -> PartitionInfo:
    return state.cluster.topics[TOPIC].partitions[0]


def allow_unclean(state: State) -> tuple[str, ...]:
    request = AlterTopic(0, name="t", config={"unclean_leader_election": "true"})
    decision = accept(state, alter_topic.decide(state, request))
    assert decision.unclean == len(decision.warnings)
    return decision.warnings


def test_a_durable_node_that_was_killed_stays_in_sync(state: State) -> None:
    create(state, "t", replication_factor=2)
    kill(state, 1, 2)
    assert register(state, 2, clean=False).warnings == ()
    assert partition(state) == PartitionInfo((1, 2), 2, 1, 2, (2,))


def test_a_node_that_may_lack_what_it_acknowledged_has_to_catch_up(state: State) -> None:
    create(state, "t", replication_factor=2, config={"min_insync_replicas": 2})
    assert register(state, 2, clean=False, durable=False).warnings == ()
    assert partition(state) == PartitionInfo((1, 2), 1, 0, 1, (1,))
    kill(state, 1)
    assert partition(state).leader == NO_LEADER
    assert register(state, 1, durable=False).warnings == ()  # it was stopped cleanly
    assert partition(state).leader == 1


def test_an_eligible_replica_that_may_lack_records_is_not_any_more(state: State) -> None:
    create(state, "t", replication_factor=2, config={"min_insync_replicas": 2})
    kill(state, 2)
    assert partition(state).elr == (2,)
    register(state, 2, clean=False, durable=False)
    assert partition(state) == PartitionInfo((1, 2), 1, 0, 2, (1,))


def test_a_sole_replica_leads_on_and_the_risk_is_told(state: State) -> None:
    create(state, "t")
    [warning] = register(state, 1, clean=False, durable=False).warnings
    assert warning.startswith("node 1 was killed before all that it had acknowledged was on its disk")
    assert warning.endswith("1 partition that only it holds may be lost: t-0")
    assert partition(state).leader == 1


def test_an_older_copy_of_its_storage_does_not_lead(state: State) -> None:
    create(state, "t", replication_factor=2)
    kill(state, 1)
    for openings in ([1], [1], [1, 2, 3]):  # one in between was not registered
        assert register(state, 2, openings=openings).warnings == ()
        assert partition(state).leader == 2
    warning, leaderless = register(state, 2, openings=[1, 2, 4, 5]).warnings
    assert warning == "node 2 came back with an older copy of its storage"
    assert leaderless.startswith("node 2 was the last that could have led 1 partitions without loss")
    assert (partition(state).leader, partition(state).isr) == (NO_LEADER, ())


def test_an_older_copy_of_a_sole_replica_leads_and_the_risk_is_told(state: State) -> None:
    create(state, "t")
    register(state, 1, openings=[1, 2])
    [warning] = register(state, 1, openings=[1, 3]).warnings
    assert "older copy" in warning
    assert warning.endswith("the last records of 1 partition that only it holds may be lost: t-0")
    assert partition(state).leader == 1


def test_when_the_last_one_in_sync_may_lack_records_nobody_leads_and_that_is_told(state: State) -> None:
    create(state, "t", replication_factor=2)
    kill(state, 2)
    [warning] = register(state, 1, clean=False, durable=False).warnings
    assert warning.startswith("node 1 was the last that could have led 1 partitions without loss")
    assert "t-0. Set unclean_leader_election=true" in warning
    assert partition(state) == PartitionInfo((1, 2), NO_LEADER, 0, 2, ())
    [warning] = allow_unclean(state)
    assert "records may be lost in 1 partition, now led: t-0 by node 1" in warning
    assert partition(state) == PartitionInfo((1, 2), 1, 1, 3, (1,))


def test_other_storage_leaves_the_isr_but_for_a_sole_replica(state: State) -> None:
    create(state, "t", replication_factor=2)
    kill(state, 1)
    kill(state, 2)
    register(state, 1)
    assert partition(state) == PartitionInfo((1, 2), NO_LEADER, 1, 2, (2,))
    register(state, 2, storage_id="other")
    assert partition(state).isr == ()


def test_an_empty_replica_does_not_lead_while_one_that_was_in_sync_may_return(state: State) -> None:
    create(state, "t", replication_factor=3, config={"unclean_leader_election": 1})
    for node_id in (1, 2, 3):
        kill(state, node_id)
    assert partition(state).isr == (3,)
    decision = register(state, 1, storage_id="other")
    assert decision.unclean == 0
    assert "other storage" in decision.warnings[0]
    assert "1 partition: t-0. If none will, set unclean_leader_election=false" in decision.warnings[1]
    assert partition(state).leader == NO_LEADER
    decision = register(state, 2)  # it was not in sync any more, but has something
    assert decision.unclean == 1
    assert partition(state).leader == 2


def test_an_empty_replica_leads_when_nobody_can_return_with_more(state: State) -> None:
    create(state, "t", replication_factor=2, config={"unclean_leader_election": 1})
    kill(state, 1)
    kill(state, 2)
    register(state, 1, storage_id="other")
    assert partition(state).leader == NO_LEADER
    decision = register(state, 2, storage_id="another")
    assert decision.unclean == 1
    assert partition(state) == PartitionInfo((1, 2), 1, 2, 3, (1,))


def test_an_empty_replica_leads_if_told_to(state: State) -> None:
    create(state, "t", replication_factor=2, config={"unclean_leader_election": 1})
    kill(state, 1)
    kill(state, 2)
    register(state, 1, storage_id="other")
    request = AlterTopic(0, name="t", config={"unclean_leader_election": "false"})
    accept(state, alter_topic.decide(state, request))
    [warning] = allow_unclean(state)
    assert "t-0 by node 1" in warning


def test_an_unclean_election_needs_consent_and_nobody_better(state: State) -> None:
    create(state, "t", replication_factor=3)
    kill(state, 3)
    kill(state, 2)
    register(state, 3)
    assert kill(state, 1).unclean == 0
    assert partition(state) == PartitionInfo((1, 2, 3), NO_LEADER, 0, 3, (1,))
    [warning] = allow_unclean(state)
    assert "t-0 by node 3" in warning
    assert partition(state) == PartitionInfo((1, 2, 3), 3, 1, 4, (3,))
    assert allow_unclean(state) == ()


def test_with_consent_it_comes_at_once(state: State) -> None:
    create(state, "t", replication_factor=2, config={"unclean_leader_election": 1})
    kill(state, 2)
    register(state, 2)
    decision = kill(state, 1)
    assert decision.unclean == 1
    [warning] = decision.warnings
    assert warning.startswith("unclean election, since no replica that was in sync is alive")
    assert partition(state) == PartitionInfo((1, 2), 2, 1, 2, (2,))


def test_a_quick_restart_is_no_reason_for_an_unclean_election(state: State) -> None:
    create(state, "t", replication_factor=2, config={"unclean_leader_election": 1})
    kill(state, 2)
    register(state, 2)
    assert register(state, 1, clean=False).warnings == ()
    assert partition(state) == PartitionInfo((1, 2), 1, 1, 2, (1,))


def test_a_lower_minimum_clears_the_elr(state: State) -> None:
    create(state, "t", replication_factor=2, config={"min_insync_replicas": 2})
    kill(state, 2)
    assert partition(state).elr == (2,)
    accept(state, alter_topic.decide(state, AlterTopic(0, name="t", config={"min_insync_replicas": 1})))
    assert partition(state) == PartitionInfo((1, 2), 1, 0, 2, (1,))
