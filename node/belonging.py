"""Which clusters a node's logs may belong to: a file in its folder, with their ids, one a line.

A node with logs refuses to join a cluster that it was never in and that has topics: its folder was
probably mixed up. A cluster without topics may be one whose coordinator lost its store, or begins anew:
that is joined, and then the node has been in both.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tailrace.durable import write_durably
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.messages import SnapshotTaken

from .storage.folder import CLUSTERS

logger: Final = logging.getLogger(__name__)


class Belonging:
    """Of one folder. Belongs to the network thread."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        self._file = folder / CLUSTERS
        self._met = ""
        self._known = self._file.read_text("ascii", "replace").split() if self._file.exists() else []

    def meet(self, found: SnapshotTaken, held_topics: Collection[bytes]) -> DataFolderError | None:
        """The coordinator has told of its cluster; why the node must not join that, if it must not."""
        self._met = found.cluster_id
        if not (self._known and held_topics and found.cluster_id and found.snapshot.topics):
            return None
        if found.cluster_id in self._known:
            return None
        return DataFolderError(
            f"data folder {self._folder} belongs to cluster {self._known[-1]}, and the coordinator to "
            f"cluster {found.cluster_id}: give the node its own folder, or its own coordinator's address. To "
            f"have it join all the same, remove {self._file}: its logs are kept then, and nobody reads them"
        )

    def record(self) -> None:
        """The node is a member of the cluster that it met. A write with fsync, once for each cluster."""
        if not self._met or self._met in self._known:
            return
        self._known.append(self._met)
        try:
            write_durably(self._file, "".join(f"{known}\n" for known in self._known).encode())
        except OSError as error:  # such as a full disk: the node serves all the same
            logger.warning("that the node is in cluster %s is not recorded: %s", self._met, error)
