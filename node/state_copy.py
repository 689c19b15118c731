"""A node's copy of the cluster state, kept in step by the Clone pattern. Pure.

Subscribe first, then take a snapshot, then apply only updates with the next version; a gap means
a new snapshot. Updates that arrive while a snapshot is on its way are kept and applied after it.
Source: the ZeroMQ guide, "Reliable Pub-Sub (Clone Pattern)".
"""

from dataclasses import dataclass, field

from tailrace.protocol.cluster import ClusterState, PartitionChanged, Snapshot, TopicChanged, TopicRemoved
from tailrace.protocol.limits import UPDATES_BUFFERED_MAX
from tailrace.protocol.messages import Beat, Update


@dataclass(slots=True)
class Progress:
    """What a step of the copy means for the one who holds logs."""

    touched: set[bytes] = field(default_factory=set)
    """Ids of topics that changed."""
    deleted: set[bytes] = field(default_factory=set)
    """Ids of topics that the coordinator said were deleted."""
    replaced: bool = False
    """The whole state was replaced: every topic may have changed."""
    vanished: bool = False
    """Topics of the old state are not in the new one, and nobody said why."""

    def __bool__(self) -> bool:
        return self.replaced or bool(self.touched)


class StateCopy:
    """The state at one version, and whether it is known to be behind the coordinator's."""

    def __init__(self) -> None:
        self.cluster = ClusterState()
        self.snapshot_asked = False
        self.behind = True
        self._kept: list[Update] = []

    @property
    def position(self) -> tuple[int, int]:
        """Controller epoch and version: a later state has a larger position."""
        return self.cluster.controller_epoch, self.cluster.version

    def asked(self) -> None:
        """A snapshot was asked for: keep the updates from now on."""
        self.snapshot_asked = True
        self._kept.clear()

    def disconnected(self) -> None:
        """No snapshot will come, and updates may be missed from now on."""
        self.snapshot_asked = False
        self.behind = True
        self._kept.clear()

    def adopt(self, snapshot: Snapshot) -> Progress:
        """Take the state of a snapshot that was asked for, unless ours is as new, then what was kept."""
        progress = Progress()
        if (snapshot.controller_epoch, snapshot.version) > self.position:
            old, self.cluster = self.cluster, ClusterState(snapshot)
            progress.replaced = True
            progress.vanished = not old.topics.keys() <= self.cluster.topics.keys()
        self.snapshot_asked = False
        self.behind = False
        kept, self._kept = self._kept, []
        for update in kept:
            self._apply(update, progress)
        return progress

    def apply(self, update: Update) -> Progress:
        """Apply the next update. An old one does nothing, one that came too early sets `behind`."""
        progress = Progress()
        if self.snapshot_asked:
            self._kept.append(update)
            del self._kept[:-UPDATES_BUFFERED_MAX]
        else:
            self._apply(update, progress)
        return progress

    def beat(self, beat: Beat) -> None:
        """The coordinator is at this position: an update was missed if we are not."""
        if not self.snapshot_asked and (beat.controller_epoch, beat.version) > self.position:
            self.behind = True

    def _apply(self, update: Update, progress: Progress) -> None:
        if (update.controller_epoch, update.version) <= self.position:
            return
        if (update.controller_epoch, update.version - 1) != self.position:
            self.behind = True
            return
        self.cluster.apply_all(update.changes)
        for change in update.changes:
            match change:
                case TopicChanged(topic):
                    progress.touched.add(topic.topic_id)
                case PartitionChanged(topic_id):
                    progress.touched.add(topic_id)
                case TopicRemoved(topic_id):
                    progress.touched.add(topic_id)
                    progress.deleted.add(topic_id)
                case _:
                    pass
        self.cluster.version = update.version
