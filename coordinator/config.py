"""What the coordinator needs to know to start."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """Times in milliseconds. `tcp`/`ipc` is the ROUTER, `publisher_tcp`/`publisher_ipc` the PUB socket."""

    data_dir: Path
    tcp: str = "tcp://127.0.0.1:7070"
    ipc: str = ""
    publisher_tcp: str = "tcp://127.0.0.1:0"
    publisher_ipc: str = ""
    session_timeout_ms: int = 6_000
    beat_interval_ms: int = 1_000
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    """How long the offsets of a group without members are kept."""
