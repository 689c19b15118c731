"""Where a cluster's processes keep their files and local sockets, below one data folder."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tailrace.transport.endpoint import IPC_PATH_BYTES_MAX

_LONGEST_NAME: Final = "coordinator.sock"
_SHORT_TEMPORARY_FOLDER: Final = "/tmp"


@dataclass(frozen=True)
class Layout:
    """`root` is the data folder, absolute: all processes of a cluster must derive the same paths."""

    root: Path

    @property
    def coordinator(self) -> Path:
        """The folder of the coordinator's store."""
        return self.root / "coordinator"

    def node(self, node_id: int) -> Path:
        """The folder of a node's storage."""
        return self.root / f"node-{node_id}"

    @property
    def run(self) -> Path:
        """The folder of the sockets: `run`, or one in a temporary folder when its path is too long."""
        folder = self.root / "run"
        if _fits(folder):
            return folder
        import hashlib  # 8 ms that hardly ever are needed

        name = f"tailrace-{os.geteuid()}-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}"
        folder = Path(tempfile.gettempdir()) / name
        return folder if _fits(folder) else Path(_SHORT_TEMPORARY_FOLDER) / name

    def ipc(self, name: str) -> str:
        """The ipc endpoint of a process: `coordinator`, `publisher` or `node-1`."""
        return f"ipc://{self.run / name}.sock"


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _LONGEST_NAME)) <= IPC_PATH_BYTES_MAX


def layout_of(data_dir: Path) -> Layout:
    """The layout below a folder that need not exist yet, relative to the current one."""
    return Layout(data_dir.resolve())
