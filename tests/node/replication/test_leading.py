"""The rules of the high watermark and of the in-sync replicas (RELIABILITY R2 to R4)."""

from msgspec.structs import replace

from tailrace.node.replication.leading import LAG_S_MAX, LeadReplica, seen_members
from tailrace.protocol.cluster import PartitionInfo

INFO = PartitionInfo(replicas=(1, 2, 3), leader=1, leader_epoch=4, partition_epoch=7, isr=(1, 2, 3))
EPOCHS = {1: 10, 2: 20, 3: 30}


def leader(info: PartitionInfo = INFO, min_insync: int = 2, start: int = 0) -> LeadReplica:
    return LeadReplica(1, info, min_insync, start=start, now=0.0)


def fetch(replica: LeadReplica, node_id: int, offset: int, end: int, now: float = 0.0) -> None:
    replica.fetched(node_id, EPOCHS[node_id], offset, end_offset=end, now=now)


def test_the_high_watermark_is_what_all_in_sync_replicas_have() -> None:
    replica = leader()
    assert replica.high_watermark(0, 100) == 0, "nobody has been heard of"
    fetch(replica, 2, 100, 100)
    assert replica.high_watermark(0, 100) == 0
    fetch(replica, 3, 60, 100)
    assert replica.high_watermark(0, 100) == 60
    fetch(replica, 3, 120, 120)
    assert replica.high_watermark(60, 100) == 100, "not above what the leader has on its own disk"


def test_it_never_goes_back() -> None:
    replica = leader()
    fetch(replica, 2, 50, 100)
    fetch(replica, 3, 50, 100)
    assert replica.high_watermark(70, 100) == 70
    fetch(replica, 2, 10, 100)
    assert replica.high_watermark(70, 100) == 70


def test_it_stands_while_too_few_are_in_sync() -> None:
    replica = leader(replace(INFO, isr=(1,), elr=(2, 3)))
    assert not replica.enough
    fetch(replica, 2, 100, 100)
    assert replica.high_watermark(10, 100) == 10
    replica.follow(replace(INFO, isr=(1, 2), partition_epoch=8), 2)
    assert replica.enough
    assert replica.high_watermark(10, 100) == 100


def test_it_stands_while_others_may_be_elected_who_are_not_in_sync() -> None:
    """The answer may come before what it was decided by: min_insync_replicas was 1 until now."""
    replica = leader(replace(INFO, replicas=(1, 2), isr=(1, 2)), min_insync=1)
    fetch(replica, 2, 100, 100)
    assert replica.propose(100, EPOCHS, LAG_S_MAX + 1) == (1,)
    replica.answered(replace(INFO, replicas=(1, 2), isr=(1,), elr=(2,), partition_epoch=8))
    assert not replica.enough
    assert replica.high_watermark(100, 120) == 100
    replica.follow(replace(INFO, replicas=(1, 2), isr=(1,), partition_epoch=9), 1)  # it is 1 again
    assert replica.high_watermark(100, 120) == 120


def test_it_waits_for_those_that_were_proposed_too() -> None:
    """KIP-497: either set may be what the next leader is elected from."""
    replica = leader(replace(INFO, isr=(1, 2)))
    fetch(replica, 2, 100, 100)
    fetch(replica, 3, 90, 100)
    assert replica.propose(80, EPOCHS, 0.0) == (1, 2, 3)
    assert replica.high_watermark(80, 100) == 90
    replica.answered(replace(INFO, isr=(1, 2), partition_epoch=8))
    assert replica.high_watermark(90, 100) == 100


def test_it_stands_once_the_answer_tells_of_another_leader() -> None:
    """With the proposed one in sync somebody else may lead: the successor of a draining node, say."""
    replica = leader(replace(INFO, isr=(1, 2)))
    fetch(replica, 2, 100, 100)
    fetch(replica, 3, 90, 90)
    assert replica.propose(80, EPOCHS, 0.0) == (1, 2, 3)
    replica.answered(replace(INFO, leader=3, leader_epoch=5, partition_epoch=8))
    assert replica.high_watermark(90, 100) == 90
    assert replica.propose(90, EPOCHS, 0.0) is None


def test_who_lags_is_put_out_and_is_waited_for_until_that_is_decided() -> None:
    replica = leader()
    fetch(replica, 2, 100, 100, now=LAG_S_MAX)
    fetch(replica, 3, 10, 100, now=LAG_S_MAX)
    assert replica.propose(10, EPOCHS, LAG_S_MAX) is None
    later = LAG_S_MAX + 1
    assert replica.propose(10, EPOCHS, later) == (1, 2)
    assert replica.high_watermark(10, 100) == 10
    assert replica.propose(10, EPOCHS, later) is None, "one at a time"
    replica.answered(replace(INFO, isr=(1, 2), partition_epoch=8))
    assert replica.high_watermark(10, 100) == 100


def test_one_that_is_always_a_little_behind_is_in_sync() -> None:
    replica = leader(replace(INFO, isr=(1, 2)))
    for step in range(40):
        now = float(step)
        fetch(replica, 2, 100 * step, 100 * (step + 1), now=now)
        assert replica.propose(0, {}, now) is None


def test_who_comes_in() -> None:
    start = 50
    info = replace(INFO, isr=(1, 2))
    for offset, high_watermark, epochs, expected in (
        (49, 0, EPOCHS, None),  # not at the start of this leader's epoch (R4)
        (69, 70, EPOCHS, None),  # not all that is committed
        (70, 70, {**EPOCHS, 3: 31}, None),  # an older process of the node (KIP-903)
        (70, 70, {1: 10, 2: 20}, None),  # dead
        (70, 70, EPOCHS, (1, 2, 3)),
    ):
        replica = leader(info, start=start)
        fetch(replica, 2, 100, 100)
        fetch(replica, 3, offset, 100)
        assert replica.propose(high_watermark, epochs, 0.0) == expected
    replica = leader(info, start=start)
    assert replica.propose(0, EPOCHS, 0.0) is None, "it has not fetched in this epoch"


def test_who_would_be_late_at_once_stays_out() -> None:
    """As a follower with a full disk, which has what is committed, and fetches on."""
    replica = leader(replace(INFO, isr=(1,), elr=(2, 3)))
    late = LAG_S_MAX + 1
    fetch(replica, 2, 80, 100)
    fetch(replica, 2, 80, 100, now=late)
    assert replica.propose(80, EPOCHS, late) is None
    fetch(replica, 2, 100, 100, now=late)
    assert replica.propose(80, EPOCHS, late) == (1, 2)


def test_an_older_process_is_not_heard() -> None:
    replica = leader()
    replica.fetched(3, 30, 80, end_offset=100, now=0.0)
    replica.fetched(3, 29, 100, end_offset=100, now=0.0)
    fetch(replica, 2, 100, 100)
    assert replica.high_watermark(0, 100) == 80
    replica.fetched(3, 31, 20, end_offset=100, now=0.0)
    assert replica.high_watermark(0, 100) == 20


def test_a_proposal_without_an_answer_is_made_again() -> None:
    replica = leader(replace(INFO, isr=(1, 2)))
    fetch(replica, 3, 100, 100)
    assert replica.propose(0, EPOCHS, 0.0) == (1, 2, 3)
    replica.unanswered()
    assert replica.high_watermark(0, 100) == 0, "it may have been done"
    assert replica.propose(0, {}, 0.0) == (1, 2, 3), "the same, whatever holds by now"
    replica.follow(replace(INFO, partition_epoch=8), 2)
    replica.answered(None)
    assert replica.propose(0, EPOCHS, 0.0) is None


def test_what_is_asked_again_is_not_for_a_member_that_has_started_anew_since() -> None:
    replica, other = leader(replace(INFO, isr=(1, 2))), leader(replace(INFO, isr=(1, 2)))
    fetch(replica, 3, 100, 100)
    assert replica.propose(0, EPOCHS, 0.0) == (1, 2, 3)
    replica.unanswered()
    replica.fetched(3, EPOCHS[3] + 1, 0, end_offset=100, now=0.0)  # its disk is another one
    assert replica.propose(0, EPOCHS | {3: EPOCHS[3] + 1}, 0.0) == (1, 2, 3)
    assert replica.seen[3] == EPOCHS[3], "the coordinator refuses it if it was not done"
    other.fetched(3, EPOCHS[3] + 1, 100, end_offset=100, now=0.0)
    assert other.propose(0, EPOCHS | {3: EPOCHS[3] + 1}, 0.0) == (1, 2, 3)
    assert seen_members([other])[3] == EPOCHS[3] + 1
    assert seen_members([replica, other])[3] == seen_members([other, replica])[3] == EPOCHS[3]


def test_an_older_state_changes_nothing() -> None:
    replica = leader()
    replica.follow(replace(INFO, isr=(1,), partition_epoch=6), 2)
    assert replica.partition_epoch == 7
    assert replica.enough


def test_an_acknowledgement_counts_only_from_a_follower_that_has_fetched_and_says_more() -> None:
    replica = leader(replace(INFO, isr=(1, 2)))

    def acknowledged(offset: int, node_epoch: int = EPOCHS[2], end: int = 100) -> bool:
        return replica.acknowledged(2, node_epoch, offset, end_offset=end, now=0.0)

    assert not acknowledged(50), "in this epoch it has not fetched"
    assert replica.high_watermark(0, 100) == 0
    fetch(replica, 2, 50, 100)
    assert not acknowledged(90, EPOCHS[2] - 1), "an older process of the node"
    assert not acknowledged(101), "more than there is"
    assert replica.high_watermark(0, 100) == 50
    assert acknowledged(80)
    assert not acknowledged(60), "late, after a newer one"
    assert replica.high_watermark(0, 100) == 80
