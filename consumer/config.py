"""What a consumer can be told, checked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tailrace.client.arguments import check_int, check_timeout, timeout_of
from tailrace.client.serializers import Deserializer, deserializer_of
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import (
    FETCH_BYTES_MAX,
    FETCH_SLOT_BYTES_MAX,
    FETCH_WAIT_MS_MAX,
    MAX_POLL_RECORDS_MAX,
    MIB,
    SESSION_TIMEOUT_MS_MAX,
    SESSION_TIMEOUT_MS_MIN,
)

from .assigned import Reset
from .on_error import on_error_of

RESETS: Final = ("earliest", "latest", "none")
Strategy: TypeAlias = Literal["uniform", "range"]
STRATEGIES: Final = ("uniform", "range")
_GROUP_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BOUNDS: Final = {
    "auto_commit_interval_ms": (0, 2**31),
    "fetch_min_bytes": (1, FETCH_BYTES_MAX),
    "fetch_max_wait_ms": (1, FETCH_WAIT_MS_MAX),
    "fetch_max_bytes": (1, FETCH_BYTES_MAX),
    "max_partition_fetch_bytes": (1, FETCH_BYTES_MAX),
    "max_poll_records": (1, MAX_POLL_RECORDS_MAX),
    "request_timeout_ms": (1, 2**31),
    "session_timeout_ms": (SESSION_TIMEOUT_MS_MIN, SESSION_TIMEOUT_MS_MAX),
}
_FLAGS: Final = ("enable_auto_commit", "check_crcs")


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig:
    """The options of `Consumer`, where they are explained. Times in milliseconds, sizes in bytes.

    Raises InvalidArgumentError for a value that does not fit, with what would.
    """

    bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070"
    group_id: str | None = None
    group_instance_id: str | None = None
    session_timeout_ms: int = 6_000
    max_poll_interval_ms: int | None = None
    partition_assignment_strategy: Strategy = "uniform"
    client_id: str | None = None
    auto_offset_reset: Reset = "latest"
    enable_auto_commit: bool = True
    auto_commit_interval_ms: int = 1_000
    offset_store: str | Path | None = None
    key_deserializer: str | Deserializer | None = None
    value_deserializer: str | Deserializer | None = None
    fetch_min_bytes: int = 1
    fetch_max_wait_ms: int = 500
    fetch_max_bytes: int = 50 * MIB
    max_partition_fetch_bytes: int = FETCH_SLOT_BYTES_MAX
    max_poll_records: int = 500
    request_timeout_ms: int = 30_000
    consumer_timeout_ms: float | None = None
    check_crcs: bool = True
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if self.auto_offset_reset not in RESETS:
            raise InvalidArgumentError(
                f"auto_offset_reset is {self.auto_offset_reset!r}; it is one of {', '.join(RESETS)}"
            )
        for name, (least, most) in _BOUNDS.items():
            check_int(name, getattr(self, name), least, most)
        if self.consumer_timeout_ms is not None:
            check_timeout("consumer_timeout_ms", self.consumer_timeout_ms)
        self._check_types()
        self._check_group()

    def wait_s(self, timeout_ms: object = None) -> float | None:
        """How long a loop waits for more: `timeout_ms`, else `consumer_timeout_ms`; None: for ever."""
        return timeout_of(self.consumer_timeout_ms if timeout_ms is None else timeout_ms)

    def _check_group(self) -> None:
        for name in ("group_id", "group_instance_id"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and _GROUP_NAME.fullmatch(value)):
                raise InvalidArgumentError(
                    f"{name} is {value!r:.100}; it is 1 to 249 letters, digits, dots, underscores and hyphens"
                )
        if self.group_instance_id is not None and self.group_id is None:
            raise InvalidArgumentError("group_instance_id names a member of a group: give group_id too")
        if self.max_poll_interval_ms is not None:
            check_int("max_poll_interval_ms", self.max_poll_interval_ms, 1, 2**31)
        if self.partition_assignment_strategy not in STRATEGIES:
            raise InvalidArgumentError(
                f"partition_assignment_strategy is {self.partition_assignment_strategy!r:.100}; "
                f"it is one of {', '.join(STRATEGIES)}"
            )

    def _check_types(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgumentError(f"{name} is {getattr(self, name)!r}; it is True or False")
        for name in ("key_deserializer", "value_deserializer"):
            deserializer_of(name, getattr(self, name))
        on_error_of(self.on_error)
        if not isinstance(self.client_id, str | None):
            raise InvalidArgumentError(f"client_id is {self.client_id!r:.100}; it is a str or None")
        if not isinstance(self.offset_store, str | Path | None) or self.offset_store == "":
            raise InvalidArgumentError("offset_store is the path of a folder, or None")


OPTIONS: Final = tuple(field.name for field in fields(ConsumerConfig))
