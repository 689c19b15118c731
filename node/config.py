"""What one node needs to know to start."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tailrace.protocol.limits import GIB, STORAGE_RESERVE_BYTES


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """Sizes in bytes, times in milliseconds.

    `coordinator` are the ROUTER endpoints to register at, tried in turn (`ipc://path` or
    `tcp://host:port`). `quota_bytes` is the LMDB map size and so the node's share of the disk.
    """

    node_id: int
    data_dir: Path
    coordinator: tuple[str, ...]
    tcp: str = "tcp://127.0.0.1:0"
    ipc: str = ""
    rack: str = ""
    flush: Literal["commit", "relaxed"] = "commit"
    ephemeral: bool = False
    quota_bytes: int = 64 * GIB
    reserve_bytes: int = STORAGE_RESERVE_BYTES
    retention_check_ms: int = 5_000
