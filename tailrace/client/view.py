"""A client's copy of the cluster state, kept by the Clone pattern (zguide, chapter 5).

Subscribe first, then take a snapshot, then apply only the update that leads from the version held
to the next. Whatever does not fit (a gap, a newer coordinator, a change of something unknown) makes
the copy *behind*, and only a snapshot ends that. States of older controller epochs are discarded.
"""

from collections.abc import Iterable

from tailrace.protocol.cluster import ClusterState, Snapshot
from tailrace.protocol.errors import UnknownTopicError
from tailrace.protocol.limits import UPDATES_BUFFERED_MAX
from tailrace.protocol.messages import Beat, Published, Update


class ClusterView:
    """Decides what to make of snapshots, updates and beats.

    `state` is replaced by a new object with every change and never altered, so that other threads
    may read it: they see one version or the next, whole.
    """

    def __init__(self) -> None:
        self.state = ClusterState()
        self.cluster_id = ""
        self.known = False
        """A snapshot was seen, ever."""
        self.behind = True
        """A snapshot is needed."""
        self._buffered: list[Update] = []

    def apply_published(self, messages: Iterable[Published]) -> bool:
        """Take what the coordinator has published, in its order; True if the state changed."""
        before = self.state
        for message in messages:
            if isinstance(message, Beat):
                self._apply_buffered()
                self._check_beat(message)
            else:
                self._buffered.append(message)
        self._apply_buffered()
        return self.state is not before

    def apply_snapshot(self, cluster_id: str, snapshot: Snapshot) -> bool:
        """Take a snapshot; True if the state changed. One older than the state changes nothing.

        Another cluster id means that the address is another cluster's now, whose epochs and
        versions say nothing about the ones held: the snapshot then counts whatever they are.
        """
        before = self.state
        if self.known and cluster_id == self.cluster_id:
            held = (before.controller_epoch, before.version)
            offered = (snapshot.controller_epoch, snapshot.version)
            if offered < held:
                return False
            if offered > held:
                self.state = ClusterState(snapshot)
        else:
            self.state = ClusterState(snapshot)
            self.cluster_id = cluster_id
            self.known = True
        self.behind = False
        self._apply_buffered()
        return self.state is not before

    def _check_beat(self, beat: Beat) -> None:
        """A beat comes after the updates that it counts: they are all here, or some were lost."""
        if (beat.controller_epoch, beat.version) > (self.state.controller_epoch, self.state.version):
            self.behind = True

    def _apply_buffered(self) -> None:
        """Apply the updates that follow the state, each in turn; keep the rest for the next snapshot."""
        held = (self.state.controller_epoch, self.state.version)
        later = [update for update in self._buffered if (update.controller_epoch, update.version) > held]
        fitting = later[: _successors(self.state, later)]
        advanced = _advanced(self.state, fitting) if fitting else None
        if advanced is not None:
            self.state = advanced
            later = later[len(fitting) :]
        self._buffered = later[-UPDATES_BUFFERED_MAX:]
        if later:
            self.behind = True


def unknown_topic(state: ClusterState, name: str) -> UnknownTopicError:
    """The error that says so, and names similar topics."""
    similar = " or ".join(repr(other) for other in state.similar_topics(name))
    hint = f"; did you mean {similar}?" if similar else ""
    return UnknownTopicError(f"topic {name!r} does not exist{hint}")


def _successors(state: ClusterState, updates: list[Update]) -> int:
    """How many of the first `updates` lead on from the state, each from the one before."""
    count = 0
    for update in updates:
        if (update.controller_epoch, update.version) != (state.controller_epoch, state.version + count + 1):
            break
        count += 1
    return count


def _advanced(state: ClusterState, updates: list[Update]) -> ClusterState | None:
    """The state after `updates`; None if a change speaks of something that the state does not have."""
    after = ClusterState()
    after.controller_epoch = state.controller_epoch
    after.version = updates[-1].version
    after.nodes = dict(state.nodes)
    after.topics = dict(state.topics)
    after.topic_ids = dict(state.topic_ids)
    try:
        for update in updates:
            for change in update.changes:
                after.apply(change)
    except KeyError:
        return None
    return after
