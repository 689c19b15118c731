"""A copy of the cluster state, kept in step by the Clone pattern. Pure.

Subscribe first, then take a snapshot, then apply only the update that leads from the version held
to the next. What does not fit (a gap, a newer coordinator, a change of something unknown) leaves
the copy *behind* until a snapshot comes; updates that came too early are kept and applied after it.
What an older coordinator says is discarded.
Source: the ZeroMQ guide, "Reliable Pub-Sub (Clone Pattern)".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .cluster import Change, ClusterState, PartitionChanged, Snapshot, TopicChanged, TopicRemoved
from .limits import UPDATES_BUFFERED_MAX
from .messages import Published, Update


@dataclass(frozen=True, slots=True)
class Progress:
    """How the state moved on in one step."""

    moved: bool = False
    """The state is another object than before."""
    touched: frozenset[bytes] | None = frozenset()
    """Ids of the topics that changed; None: the whole state was replaced, any may have."""
    deleted: frozenset[bytes] = frozenset()
    """Ids of the topics that were said to be deleted. One that only is not in a snapshot is not here."""


class ClusterCopy:
    """Decides what to make of snapshots, updates and beats.

    `state` is replaced by a new object with every change and never altered, so that other threads
    may read it: they see one version or the next, whole.
    """

    def __init__(self) -> None:
        self.state = ClusterState()
        self.known = False
        """A snapshot was seen, ever."""
        self._newest = (0, 0)
        """The highest controller epoch and version heard of."""
        self._kept: list[Update] = []
        """Updates later than the state that do not follow it."""

    @property
    def behind(self) -> bool:
        """A snapshot is needed: there is none yet, or something newer is known to be."""
        return not self.known or _place(self.state) < self._newest

    def take_published(self, messages: Iterable[Published]) -> Progress:
        """Take what the coordinator has published, in its order."""
        for message in messages:
            self._newest = max(self._newest, _place(message))
            if isinstance(message, Update):
                self._kept.append(message)
        return self._apply_kept()

    def take_snapshot(self, snapshot: Snapshot, *, afresh: bool = False) -> Progress:
        """Take a snapshot, unless the state is as new; then what was kept and follows.

        With `afresh` it counts whatever its epoch and version are: it is another cluster's, and
        the ones held and heard of say nothing about them.
        """
        if afresh:
            self._newest, self._kept = (0, 0), []
        elif self.known and _place(snapshot) <= _place(self.state):
            return self._apply_kept()
        self.state = ClusterState(snapshot)
        self.known = True
        self._newest = max(self._newest, _place(snapshot))
        return replace(self._apply_kept(), moved=True, touched=None)

    def _apply_kept(self) -> Progress:
        """Apply the updates that follow the state, each in turn; keep the rest for the next snapshot."""
        later = [update for update in self._kept if _place(update) > _place(self.state)]
        self._kept = later[-UPDATES_BUFFERED_MAX:]
        count = _successors(self.state, later) if self.known else 0
        if not count:
            return Progress()
        changes = [change for update in later[:count] for change in update.changes]
        state = self.state.copy()
        try:
            state.apply_all(changes)
        except LookupError:  # a change of something unknown: as good as a gap
            return Progress()
        state.version += count
        self.state = state
        self._kept = later[count:][-UPDATES_BUFFERED_MAX:]
        return _progress(changes)


def _place(of: ClusterState | Snapshot | Published) -> tuple[int, int]:
    """Where something stands in the cluster's history."""
    return of.controller_epoch, of.version


def _successors(state: ClusterState, updates: Sequence[Update]) -> int:
    """How many of the first `updates` lead on from the state, each from the one before."""
    count = 0
    for update in updates:
        if _place(update) != (state.controller_epoch, state.version + count + 1):
            break
        count += 1
    return count


def _progress(changes: Iterable[Change]) -> Progress:
    touched: set[bytes] = set()
    deleted: set[bytes] = set()
    for change in changes:
        match change:
            case TopicChanged(topic):
                touched.add(topic.topic_id)
            case PartitionChanged(topic_id):
                touched.add(topic_id)
            case TopicRemoved(topic_id):
                touched.add(topic_id)
                deleted.add(topic_id)
            case _:
                pass
    return Progress(True, frozenset(touched), frozenset(deleted))
