"""The Clone pattern: whatever the network does to updates, a copy is never wrong, only late."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.protocol.cluster import (
    Change,
    ClusterState,
    Listener,
    NodeChanged,
    NodeInfo,
    PartitionChanged,
    PartitionInfo,
    Snapshot,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)
from tailrace.protocol.cluster_copy import ClusterCopy, Progress
from tailrace.protocol.limits import UPDATES_BUFFERED_MAX
from tailrace.protocol.messages import Beat, Update

NOTHING = Progress()


def topic_id(number: int) -> bytes:
    return bytes([number]) * 16


def changes_of(version: int) -> list[Change]:
    """Three topics come, change, go, and come anew under another id; nodes come and change."""
    number = version // 4
    partition = PartitionInfo((1,), 1, version, version, (1,))
    match version % 4:
        case 1:
            topic = TopicInfo(topic_id(number), f"topic-{number % 3}", TopicConfig(), (partition,) * 2)
            return [TopicChanged(topic)]
        case 2:
            return [PartitionChanged(topic_id(number), index, partition) for index in (0, 1)]
        case 3:
            return [TopicRemoved(topic_id(number - 1))] if number else []
        case _:
            return [NodeChanged(NodeInfo(version % 5, version, Listener("tcp://x:1"), "s", True))]


def update(version: int, epoch: int = 1) -> Update:
    return Update(epoch, version, changes_of(version))


def state_at(version: int, epoch: int = 1) -> ClusterState:
    state = ClusterState()
    state.controller_epoch = epoch
    state.version = version
    for number in range(1, version + 1):
        state.apply_all(changes_of(number))
    return state


def snapshot(version: int, epoch: int = 1) -> Snapshot:
    return state_at(version, epoch).snapshot()


def copy_at(version: int, epoch: int = 1) -> ClusterCopy:
    copy = ClusterCopy()
    assert copy.take_snapshot(snapshot(version, epoch)) == Progress(moved=True, touched=None)
    assert not copy.behind
    return copy


def test_nothing_is_known_before_the_first_snapshot() -> None:
    copy = ClusterCopy()
    assert copy.take_published([update(1, epoch=0), update(1), update(2)]) == NOTHING
    assert copy.behind
    assert not copy.known
    assert copy.take_snapshot(snapshot(1)).moved
    assert copy.state.version == 2, "what was published meanwhile is applied"
    assert copy.known
    assert not copy.behind


def test_an_empty_cluster_is_known_too() -> None:
    copy = ClusterCopy()
    assert copy.take_snapshot(Snapshot(0, 0, (), ())).moved
    assert copy.known
    assert not copy.behind


def test_the_next_version_is_applied_and_old_ones_are_not() -> None:
    copy = copy_at(3)
    before = copy.state
    assert copy.take_published(map(update, (2, 3, 4, 5))) == Progress(True, frozenset({topic_id(1)}))
    assert copy.state.version == 5
    assert copy.state.snapshot() == snapshot(5)
    assert before.snapshot() == snapshot(3), "a state that was handed out does not change"


@pytest.mark.parametrize(
    ("held", "versions", "touched", "deleted"),
    [(3, [4], [], []), (5, [6], [1], []), (6, [7], [0], [0]), (4, [5, 6, 7], [0, 1], [0])],
    ids=["node", "partitions", "deleted", "all"],
)
def test_what_changed_is_told(held: int, versions: list[int], touched: list[int], deleted: list[int]) -> None:
    progress = copy_at(held).take_published(map(update, versions))
    assert progress == Progress(True, frozenset(map(topic_id, touched)), frozenset(map(topic_id, deleted)))


def test_only_who_is_said_to_be_deleted_is() -> None:
    copy = copy_at(6)
    assert copy.take_snapshot(snapshot(7)) == Progress(moved=True, touched=None), "missing, not deleted"
    copy = copy_at(4)
    copy.take_published([update(7)])
    progress = copy.take_snapshot(snapshot(6))
    assert progress == Progress(moved=True, touched=None, deleted=frozenset({topic_id(0)}))


def test_a_gap_needs_a_snapshot_and_what_came_after_it_is_kept() -> None:
    copy = copy_at(3)
    assert copy.take_published([update(5)]) == NOTHING
    assert copy.behind
    assert copy.state.version == 3
    assert copy.take_snapshot(snapshot(4)).moved
    assert copy.state.version == 5
    assert not copy.behind


def test_a_snapshot_from_before_the_gap_does_not_close_it() -> None:
    copy = copy_at(3)
    copy.take_published([update(6)])
    assert copy.take_snapshot(snapshot(4)).moved
    assert copy.state.version == 4
    assert copy.behind


def test_updates_may_overtake_the_snapshot_that_was_asked_for() -> None:
    copy = copy_at(3)
    copy.take_published(map(update, (4, 5)))
    assert copy.take_snapshot(snapshot(4)) == NOTHING
    assert copy.state.version == 5


def test_a_beat_tells_of_a_lost_update() -> None:
    copy = copy_at(3)
    copy.take_published([Beat(1, 3)])
    assert not copy.behind
    copy.take_published([update(4), Beat(1, 4)])
    assert not copy.behind
    assert copy.take_published([Beat(1, 5)]) == NOTHING
    assert copy.behind


def test_a_newer_controller_needs_a_snapshot_and_an_older_one_is_not_heard() -> None:
    copy = copy_at(3, epoch=2)
    assert copy.take_published([update(4, epoch=1), Beat(1, 9)]) == NOTHING
    assert not copy.behind
    assert copy.take_snapshot(snapshot(9, epoch=1)) == NOTHING
    assert copy.state.version == 3
    assert copy.take_published([update(4, epoch=3)]) == NOTHING
    assert copy.behind
    assert copy.take_snapshot(snapshot(3, epoch=3)).moved
    assert (copy.state.controller_epoch, copy.state.version, copy.behind) == (3, 4, False)


def test_another_cluster_replaces_everything() -> None:
    copy = copy_at(9, epoch=7)
    copy.take_published([update(11, epoch=7)])
    assert copy.take_snapshot(snapshot(1), afresh=True) == Progress(moved=True, touched=None)
    assert copy.state.snapshot() == snapshot(1)
    assert not copy.behind, "what was heard of the other cluster is forgotten"


@pytest.mark.parametrize(("number", "index"), [(99, 0), (0, 2)], ids=["topic", "partition"])
def test_a_change_of_something_unknown_needs_a_snapshot_and_leaves_no_trace(number: int, index: int) -> None:
    copy = copy_at(3)
    partition = PartitionInfo((1,), 1, 0, 0, (1,))
    odd = Update(1, 4, [*changes_of(4), PartitionChanged(topic_id(number), index, partition)])
    assert copy.take_published([odd]) == NOTHING
    assert copy.behind
    assert copy.state.snapshot() == snapshot(3)
    assert copy.take_snapshot(snapshot(4)).moved
    assert not copy.behind


def test_updates_that_wait_for_a_snapshot_are_bounded() -> None:
    copy = copy_at(3)
    last = 5 + UPDATES_BUFFERED_MAX + 500
    copy.take_published(Update(1, version, []) for version in range(5, last + 1))
    copy.take_snapshot(Snapshot(1, last - UPDATES_BUFFERED_MAX - 1, (), ()))
    assert copy.behind, "the oldest made way"
    assert copy.take_snapshot(Snapshot(1, last - UPDATES_BUFFERED_MAX, (), ())).moved
    assert copy.state.version == last
    assert not copy.behind


@dataclass
class Step:
    kind: str
    version: int
    epoch: int

    def possible(self) -> bool:
        """Epoch 1 ended at version 6; epoch 2 went on from there. History is one line of versions."""
        return self.version <= 6 if self.epoch == 1 else self.version >= 6


STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(["update", "update", "beat", "snapshot"]), st.integers(1, 16), st.integers(1, 2)
    ).filter(Step.possible),
    max_size=40,
)


@given(STEPS)
def test_any_loss_doubling_and_reordering_leaves_a_true_copy(steps: list[Step]) -> None:
    copy = ClusterCopy()
    newest = (0, 0)
    for step in steps:
        before = copy.state
        held = (before.controller_epoch, before.version)
        progress = take(copy, step)
        now = (copy.state.controller_epoch, copy.state.version)
        newest = max(newest, (step.epoch, step.version))
        assert now >= held, "a copy never goes back"
        assert before.snapshot() == snapshot(held[1], held[0]), "a state is never altered"
        assert copy.state.snapshot() == snapshot(now[1], now[0]), "a copy is the state of its version"
        assert copy.behind or now >= newest, "a copy that knows of something newer says so"
        assert not copy.known or copy.behind == (now < newest), "and only then"
        check_progress(progress, before, copy.state)


def take(copy: ClusterCopy, step: Step) -> Progress:
    if step.kind == "snapshot":
        return copy.take_snapshot(snapshot(step.version, step.epoch))
    update_or_beat = (
        update(step.version, step.epoch) if step.kind == "update" else Beat(step.epoch, step.version)
    )
    return copy.take_published([update_or_beat])


def check_progress(progress: Progress, before: ClusterState, after: ClusterState) -> None:
    """Progress is what a comparison of the two states finds."""
    assert progress.moved == (after is not before)
    gone = before.topics.keys() - after.topics.keys()
    assert progress.deleted.isdisjoint(after.topics)
    if progress.touched is not None:
        topics = before.topics.keys() | after.topics.keys()
        assert {
            key for key in topics if before.topics.get(key) is not after.topics.get(key)
        } <= progress.touched
        assert progress.deleted >= gone
