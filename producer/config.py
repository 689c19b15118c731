"""What a producer can be told, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from tailrace.client.serializers import Serializer, serializer_of
from tailrace.protocol.compression import Compression, compression_named
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import BATCH_BYTES_MAX, GIB, KIB, MIB, RECORD_BYTES_MAX
from tailrace.protocol.messages import ACKS_ALL

from .batch import RECORD_OVERHEAD_BYTES
from .partitioner import Partitioner, PartitionerOption

BATCH_SIZE_MAX: Final = BATCH_BYTES_MAX - MIB
"""Leaves room for what a batch has besides its records."""
BATCH_SIZE_DEFAULT: Final = 512 * KIB
"""More makes a record cheaper, until the batches no longer stay in the caches of processors on their way."""
_MS_MAX: Final = 2**31
_BOUNDS: Final = {
    "batch_size": (1, BATCH_SIZE_MAX),
    "buffer_memory": (64 * KIB, 64 * GIB),
    "delivery_timeout_ms": (1, _MS_MAX),
    "max_block_ms": (0, _MS_MAX),
    "max_request_size": (1, RECORD_BYTES_MAX),
    "request_timeout_ms": (1, _MS_MAX),
}


@dataclass(frozen=True, kw_only=True)
class ProducerConfig:
    """The options of `Producer`, where they are explained. Times in milliseconds, sizes in bytes.

    Raises InvalidArgumentError for a value that does not fit, with what would.
    """

    bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070"
    client_id: str | None = None
    acks: str | int = "all"
    enable_idempotence: bool | None = None
    linger_ms: float = 5
    batch_size: int = BATCH_SIZE_DEFAULT
    compression_type: str | None = None
    key_serializer: str | Serializer | None = None
    value_serializer: str | Serializer | None = None
    partitioner: PartitionerOption = "crc32"
    buffer_memory: int = 64 * MIB
    max_block_ms: int = 60_000
    max_request_size: int = RECORD_BYTES_MAX
    delivery_timeout_ms: int = 120_000
    request_timeout_ms: int = 30_000

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidArgumentError(
                    f"{name} is {value!r}; it is a whole number from {least} to {most}"
                )
        linger_ms = self.linger_ms
        if isinstance(linger_ms, bool) or not isinstance(linger_ms, int | float) or not linger_ms >= 0:
            raise InvalidArgumentError(
                f"linger_ms is {linger_ms!r}; it is a number of milliseconds, 0 or more"
            )
        if self.acks not in ("all", -1, 0, 1) or isinstance(self.acks, bool):
            raise InvalidArgumentError(f"acks is {self.acks!r}; it is 'all' (the same as -1), 1 or 0")
        if not isinstance(self.enable_idempotence, bool | None):
            raise InvalidArgumentError(
                f"enable_idempotence is {self.enable_idempotence!r}; it is True, False or None"
            )
        if self.enable_idempotence and self.acks_wanted != ACKS_ALL:
            raise InvalidArgumentError(
                f"acks={self.acks} does not go with enable_idempotence=True: what is not acknowledged by all"
                " replicas cannot be stored exactly once; give acks='all', or enable_idempotence=False"
            )
        for name in ("key_serializer", "value_serializer"):
            serializer_of(name, getattr(self, name))
        if not isinstance(self.client_id, str | None):
            raise InvalidArgumentError(f"client_id is {self.client_id!r}; it is a str or None")
        compression_named(self.compression_type)
        Partitioner(self.partitioner)

    @property
    def acks_wanted(self) -> int:
        """As it travels: ACKS_ALL, 1 or 0."""
        return ACKS_ALL if self.acks == "all" else int(self.acks)

    @property
    def idempotent(self) -> bool:
        """On unless it was turned off, or `acks` rules it out."""
        return self.acks_wanted == ACKS_ALL if self.enable_idempotence is None else self.enable_idempotence

    @property
    def compression(self) -> Compression:
        """The codec."""
        return compression_named(self.compression_type)

    @property
    def record_bytes_max(self) -> int:
        """The most that key, value and headers of a record may take."""
        return min(self.max_request_size, self.buffer_memory - RECORD_OVERHEAD_BYTES)

    @property
    def linger_s(self) -> float:
        """How long a batch waits for more; no longer than half of its time, lest it be late by that alone."""
        return min(self.linger_ms, self.delivery_timeout_ms / 2) / 1000

    @property
    def batch_bytes(self) -> int:
        """When a batch is full."""
        return min(self.batch_size, self.max_request_size, self.buffer_memory)


OPTIONS: Final = tuple(field.name for field in fields(ProducerConfig))
