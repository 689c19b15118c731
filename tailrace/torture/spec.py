"""What a run is to do, and what came of it."""

from typing import Final

import msgspec

from tailrace.protocol.errors import InvalidArgumentError

from .checker import Verdict
from .plan import Kind
from .timeline import Timeline

RATE_MAX: Final = 100_000.0
CLIENTS_MAX: Final = 64
PARTITIONS_MAX: Final = 256


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times in seconds; `records_per_s` of all producers together."""

    seed: int
    kinds: tuple[Kind, ...]
    duration_s: float
    every_s: float = 5.0
    producers: int = 2
    consumers: int = 2
    partitions: int = 6
    records_per_s: float = 2_000.0
    record_bytes: int = 100
    keys: int = 60
    request_timeout_ms: int = 3_000
    whole_within_s: float = 120.0

    def check(self) -> None:
        """Raises InvalidArgumentError."""
        bounds = (
            ("duration", self.duration_s, 0.5, 86_400.0), ("every", self.every_s, 0.1, self.duration_s),
            ("producers", self.producers, 1, CLIENTS_MAX), ("consumers", self.consumers, 1, CLIENTS_MAX),
            ("partitions", self.partitions, 1, PARTITIONS_MAX), ("rate", self.records_per_s, 1.0, RATE_MAX),
        )  # fmt: skip
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise InvalidArgumentError(f"{name} is {value:g}, possible are {least:g} to {most:g}")


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run that was made. `history` is the folder with all that happened in it."""

    spec: Spec
    nodes: int
    verdict: Verdict
    timeline: Timeline
    history: str
    interrupted: bool = False

    @property
    def holds(self) -> bool:
        """Was everything promised kept?"""
        return self.verdict.holds
