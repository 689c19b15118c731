"""Which clusters a node's logs may belong to: a file in its folder (`docs/storage.md`), with a line for each.

A node with logs refuses to join a cluster that it was never in and that has topics: its folder was
probably mixed up. A cluster without topics may be one whose coordinator lost its store, or begins anew:
that is joined when the node starts, and then the node has been in both. A node that runs stays in its
cluster, and serves what it leads there.

Nor does it follow a coordinator on an older copy of its store, whose elections know nothing of what came
after: such a store lacks the mark of the last opening that the node has heard of, or is at an older version.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from tailrace.durable import write_durably
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.messages import SnapshotTaken

from .storage.folder import CLUSTERS

logger: Final = logging.getLogger(__name__)


class Seen(NamedTuple):
    """The newest coordinator of a cluster. A mark of 0: it told none."""

    controller_epoch: int
    mark: int = 0


class Belonging:
    """Of one folder, whose storage has recorded `controller_epoch`. Belongs to the network thread."""

    def __init__(self, folder: Path, controller_epoch: int = 0) -> None:
        """Raises OSError."""
        self._folder = folder
        self._file = folder / CLUSTERS
        self._recorded_epoch = controller_epoch
        self._member_of = ""
        self._seen: dict[str, Seen] = {}
        """By cluster id; the cluster that the node was in last is the last one."""
        lines = self._file.read_text("ascii", "replace").splitlines() if self._file.exists() else []
        for cluster_id, *numbers in filter(None, map(str.split, lines)):
            known = [int(number) for number in numbers[:2] if number.isdecimal()]
            self._seen[cluster_id] = Seen(*known) if known else Seen(controller_epoch)
        self.is_news = False
        """There is something to `record`."""

    def controller_epoch(self, cluster_id: str) -> int:
        """The highest that the node has seen in this cluster: those of others say nothing about it."""
        if seen := self._seen.get(cluster_id):
            return seen.controller_epoch
        return 0 if self._seen and cluster_id else self._recorded_epoch

    def refusal(
        self, found: SnapshotTaken, held_topics: Collection[bytes], version: int = 0
    ) -> DataFolderError | None:
        """The coordinator has told of its cluster; why the node must not follow it, if it must not.

        `version`: the coordinator of the node's cluster was there before `found` was asked for.
        """
        cluster_id, own, known = found.cluster_id, self._member_of, self._seen
        if own and cluster_id != own:
            return DataFolderError(
                f"the coordinator is of cluster {cluster_id} now, and this node of cluster {own}, which it "
                "serves: put the coordinator's data folder of that cluster back, or restart the node to have "
                "it join the other one"
            )
        if known and held_topics and cluster_id not in known and cluster_id and found.snapshot.topics:
            return DataFolderError(
                f"data folder {self._folder} belongs to cluster {[*known][-1]}, and the coordinator to "
                f"cluster {cluster_id}: give the node its own folder, or its own coordinator's address. To "
                f"have it join all the same, remove {self._file}: its logs are kept then, but nobody reads "
                "them"
            )
        if self._lacks_mark(found) or (own and found.snapshot.version < version):
            return DataFolderError(
                "the coordinator runs on an older copy of its data folder: with that, records could be lost "
                "that were acknowledged since it was made. Put the newest one back. If there is none: stop "
                f"all nodes, copy their folders, remove {self._file} and that of each other node, start them"
            )
        return None

    def join(self, found: SnapshotTaken) -> None:
        """The node follows this coordinator."""
        self._member_of = found.cluster_id
        seen = Seen(found.snapshot.controller_epoch, *found.openings[-1:])
        if found.cluster_id and [*self._seen.items()][-1:] != [(found.cluster_id, seen)]:
            self._seen.pop(found.cluster_id, None)
            self._seen[found.cluster_id] = seen
            self.is_news = True

    def record(self) -> None:
        """The node is a member of the cluster that it met. A write with fsync, once for each coordinator."""
        self.is_news = False
        lines = (f"{known} {seen.controller_epoch} {seen.mark}\n" for known, seen in self._seen.items())
        try:
            write_durably(self._file, "".join(lines).encode())
        except OSError as error:  # such as a full disk: the node serves all the same
            logger.warning("that the node is in cluster %s is not recorded: %s", self._member_of, error)

    def _lacks_mark(self, found: SnapshotTaken) -> bool:
        """The store keeps the marks of its last openings: one of each controller epoch."""
        seen, openings = self._seen.get(found.cluster_id), found.openings
        if seen is None or not seen.mark:
            return False
        kept_since = found.snapshot.controller_epoch - len(openings)
        return seen.mark not in openings and seen.controller_epoch > kept_since and bool(openings)
