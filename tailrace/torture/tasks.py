"""What the clients of a run do, and how their parent tells them: one JSON object a line on their stdin.

First its `ClientTask`. A producer ends when it is told `Stop` (of `tailrace.bench.lines`) and everything was
answered; a consumer reads up to where `Until` says. The end of its stdin ends a client at once.
"""

from typing import Literal

import msgspec


class ClientTask(msgspec.Struct, frozen=True, kw_only=True):
    """One client. `file` is where it writes its part of the history; sizes in bytes.

    With `local` nodes of this machine are reached the fastest way, else over TCP.
    """

    role: Literal["producer", "consumer"]
    number: int
    bootstrap_servers: str
    topic: str
    partitions: int
    run: int
    start_ns: int
    file: str
    records_per_s: float
    record_bytes: int
    keys: int
    local: bool
    request_timeout_ms: int

    @property
    def name(self) -> str:
        """`producer-1`"""
        return f"{self.role}-{self.number}"
