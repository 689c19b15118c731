"""A client's copy of the cluster state, kept by the Clone pattern (zguide, chapter 5).

Subscribe first, then take a snapshot, then apply only the update that leads from the version held
to the next. What does not fit (a gap, a newer coordinator, a change of something unknown) leaves
the copy *behind* until a snapshot comes. What older controllers say is discarded.
"""

from collections.abc import Iterable

from tailrace.protocol.cluster import ClusterState, Snapshot
from tailrace.protocol.errors import UnknownTopicError
from tailrace.protocol.limits import UPDATES_BUFFERED_MAX
from tailrace.protocol.messages import Published, Update


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
        self._newest = (0, 0)
        """The highest controller epoch and version heard of."""
        self._buffered: list[Update] = []

    @property
    def behind(self) -> bool:
        """A snapshot is needed: there is none yet, or something newer is known to be."""
        return not self.known or _place(self.state) < self._newest

    def apply_published(self, messages: Iterable[Published]) -> bool:
        """Take what the coordinator has published, in its order; True if the state changed."""
        before = self.state
        for message in messages:
            self._newest = max(self._newest, _place(message))
            if isinstance(message, Update):
                self._buffered.append(message)
        self._apply_buffered()
        return self.state is not before

    def apply_snapshot(self, cluster_id: str, snapshot: Snapshot) -> bool:
        """Take a snapshot; True if the state changed. One older than the state changes nothing.

        Another cluster id means that the address is another cluster's now, whose epochs and
        versions say nothing about the ones held: the snapshot then counts whatever they are.
        """
        before = self.state
        another = self.known and cluster_id != self.cluster_id
        if another:
            self._newest, self._buffered = (0, 0), []
        if another or not self.known or _place(snapshot) > _place(before):
            self.state = ClusterState(snapshot)
            self._newest = max(self._newest, _place(snapshot))
        self.known, self.cluster_id = True, cluster_id
        self._apply_buffered()
        return self.state is not before

    def _apply_buffered(self) -> None:
        """Apply the updates that follow the state, each in turn; keep the rest for the next snapshot."""
        later = [update for update in self._buffered if _place(update) > _place(self.state)]
        fitting = later[: _successors(self.state, later)]
        advanced = _advanced(self.state, fitting) if fitting else None
        if advanced is not None:
            self.state = advanced
            later = later[len(fitting) :]
        self._buffered = later[-UPDATES_BUFFERED_MAX:]


def unknown_topic(state: ClusterState, name: str) -> UnknownTopicError:
    """The error that says so, and names similar topics."""
    similar = " or ".join(repr(other) for other in state.similar_topics(name))
    hint = f"; did you mean {similar}?" if similar else ""
    return UnknownTopicError(f"topic {name!r} does not exist{hint}")


def _place(of: ClusterState | Snapshot | Published) -> tuple[int, int]:
    """Where something stands in the cluster's history."""
    return of.controller_epoch, of.version


def _successors(state: ClusterState, updates: list[Update]) -> int:
    """How many of the first `updates` lead on from the state, each from the one before."""
    count = 0
    for update in updates:
        if _place(update) != (state.controller_epoch, state.version + count + 1):
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
