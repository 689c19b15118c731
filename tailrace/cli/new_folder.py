"""A data folder that only a failed start has made is removed again."""

import contextlib
import shutil
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from tailrace.processes.layout import Layout
from tailrace.protocol.errors import DataFolderError


class NewFolder:
    """What of a cluster's data folder was not there at construction, before its processes are started."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        folders = (layout.root, *layout.root.parents)
        self._missing = list(takewhile(lambda folder: not folder.exists(), folders))

    def remove(self) -> None:
        """After a failed start, when all processes have ended.

        Left as it is: what was there before, what another process has in use, and a folder with a topic in
        it: the coordinator may have served a client while a node did not start.
        """
        if not self._missing:
            return
        with ExitStack() as locks:
            if not self._lock_unused(locks):
                return
            for folder in self._roles():
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # something else lies there
            for folder in self._missing:
                folder.rmdir()

    def _roles(self) -> list[Path]:
        root = self._layout.root
        return [folder for folder in (self._layout.coordinator, *root.glob("node-*")) if folder.is_dir()]

    def _lock_unused(self, locks: ExitStack) -> bool:
        """Every process's folder is locked, so that none is at work, and no topic is there."""
        from tailrace.coordinator.store.lmdb_store import LmdbStore
        from tailrace.durable import LockFile, LockHeldError
        from tailrace.node.storage.folder import LOCK

        try:
            for folder in self._roles():
                if folder == self._layout.coordinator:
                    store = LmdbStore(folder)
                    locks.callback(store.close)
                    if store.load().cluster.topics:
                        return False
                else:
                    locks.callback(LockFile(folder / LOCK).release)
        except (DataFolderError, LockHeldError, OSError):
            return False
        return True
