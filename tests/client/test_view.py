"""The Clone pattern: whatever the network does to updates, a copy is never wrong, only late."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.client.view import ClusterView, unknown_topic
from tailrace.protocol.cluster import (
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
)
from tailrace.protocol.limits import UPDATES_BUFFERED_MAX
from tailrace.protocol.messages import Beat, Update


def _update(version: int, epoch: int = 1) -> Update:
    return Update(
        epoch, version, [NodeChanged(NodeInfo(version % 5, version, Listener("tcp://x:1"), "s", True))]
    )


def _state(version: int, epoch: int = 1) -> ClusterState:
    state = ClusterState()
    state.controller_epoch = epoch
    for number in range(1, version + 1):
        for change in _update(number, epoch).changes:
            state.apply(change)
    state.version = version
    return state


def _view(version: int, epoch: int = 1) -> ClusterView:
    view = ClusterView()
    assert view.apply_snapshot("c", _state(version, epoch).snapshot())
    assert not view.behind
    return view


def test_nothing_is_known_before_the_first_snapshot() -> None:
    view = ClusterView()
    assert not view.apply_published([_update(1), _update(2)])
    assert view.behind
    assert not view.known
    assert view.apply_snapshot("c", _state(1).snapshot())
    assert view.state.version == 2, "what was published meanwhile is applied"
    assert not view.behind


def test_the_next_version_is_applied_and_old_ones_are_not() -> None:
    view = _view(3)
    before = view.state
    assert view.apply_published([_update(2), _update(3), _update(4), _update(5)])
    assert view.state.version == 5
    assert view.state.nodes == _state(5).nodes
    assert before.version == 3, "a state that was handed out does not change"
    assert before.nodes == _state(3).nodes


def test_a_gap_needs_a_snapshot_and_what_came_after_it_is_kept() -> None:
    view = _view(3)
    assert not view.apply_published([_update(5)])
    assert view.behind
    assert view.state.version == 3
    assert view.apply_snapshot("c", _state(4).snapshot())
    assert view.state.version == 5
    assert not view.behind


def test_a_snapshot_from_before_the_gap_does_not_close_it() -> None:
    view = _view(3)
    view.apply_published([_update(6)])
    assert view.apply_snapshot("c", _state(4).snapshot())
    assert view.state.version == 4
    assert view.behind


def test_a_beat_tells_of_a_lost_update() -> None:
    view = _view(3)
    view.apply_published([Beat(1, 3)])
    assert not view.behind
    view.apply_published([_update(4), Beat(1, 4)])
    assert not view.behind
    view.apply_published([Beat(1, 5)])
    assert view.behind


def test_a_newer_controller_needs_a_snapshot_and_an_older_one_is_not_heard() -> None:
    view = _view(3, epoch=2)
    assert not view.apply_published([_update(4, epoch=1), Beat(1, 9)])
    assert not view.behind
    assert not view.apply_snapshot("c", _state(9, epoch=1).snapshot())
    assert view.state.version == 3
    assert not view.apply_published([_update(4, epoch=3)])
    assert view.behind
    assert view.apply_snapshot("c", _state(3, epoch=3).snapshot())
    assert (view.state.controller_epoch, view.state.version, view.behind) == (3, 4, False)


def test_another_cluster_at_the_address_replaces_everything() -> None:
    view = _view(9, epoch=7)
    assert view.apply_snapshot("other", _state(1, epoch=1).snapshot())
    assert (view.cluster_id, view.state.version) == ("other", 1)


def test_a_change_of_something_unknown_needs_a_snapshot_and_leaves_no_trace() -> None:
    view = _view(3)
    partition = PartitionInfo((1,), 1, 0, 0, (1,))
    odd = Update(1, 4, [*_update(4).changes, PartitionChanged(b"?" * 16, 0, partition)])
    assert not view.apply_published([odd])
    assert view.behind
    assert view.state.nodes == _state(3).nodes


def test_updates_that_wait_for_a_snapshot_are_bounded() -> None:
    view = _view(3)
    view.apply_published(_update(version) for version in range(5, UPDATES_BUFFERED_MAX + 500))
    assert len(view._buffered) == UPDATES_BUFFERED_MAX
    assert view.behind


def test_an_unknown_topic_names_similar_ones() -> None:
    topic = TopicInfo(b"t" * 16, "flights", TopicConfig(), ())
    state = ClusterState(Snapshot(1, 1, (), (topic,)))
    assert str(unknown_topic(state, "flihgts")) == "topic 'flihgts' does not exist; did you mean 'flights'?"
    assert str(unknown_topic(state, "zzz")) == "topic 'zzz' does not exist"
    state.apply(TopicChanged(TopicInfo(b"u" * 16, "flight", TopicConfig(), ())))
    assert "did you mean 'flights' or 'flight'?" in str(unknown_topic(state, "flightss"))


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 12), st.integers(1, 2)),
        st.tuples(st.just("beat"), st.integers(0, 12), st.integers(1, 2)),
        st.tuples(st.just("snapshot"), st.integers(0, 12), st.integers(1, 2)),
    ),
    max_size=40,
)


@given(_steps)
def test_any_loss_doubling_and_reordering_leaves_a_true_copy(steps: list[tuple[str, int, int]]) -> None:
    """Epoch 1 ended at version 6; epoch 2 went on from there. History is one line of versions."""
    view = ClusterView()
    newest = (0, 0)
    for kind, version, epoch in steps:
        if (epoch == 1 and version > 6) or (epoch == 2 and version < 6):
            continue
        held = (view.state.controller_epoch, view.state.version)
        if kind == "snapshot":
            view.apply_snapshot("c", _state(version, epoch).snapshot())
        else:
            message = _update(version, epoch) if kind == "update" else Beat(epoch, version)
            view.apply_published([message])
        newest = max(newest, (epoch, version))
        now = (view.state.controller_epoch, view.state.version)
        assert now >= held, "a copy never goes back"
        assert view.state.nodes == _state(view.state.version).nodes, "a copy is the state of its version"
        assert view.behind or now >= newest, "a copy that knows of something newer says so"
