"""What a load test is to do: checked once, and known to every client of it."""

from typing import Final, Literal, TypeAlias

import msgspec

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import (
    BATCH_BYTES_MAX,
    GIB,
    KIB,
    MIB,
    PARTITIONS_PER_TOPIC_MAX,
    RECORD_BYTES_MAX,
    REPLICATION_FACTOR_MAX,
)
from tailrace.protocol.text import plural

from .records import HEADER_BYTES, key_bytes_max

Mode: TypeAlias = Literal["produce", "consume", "e2e", "latency"]
Role: TypeAlias = Literal["producer", "consumer"]

CLIENTS_MAX: Final = 1_000
RECORDS_DEFAULT: Final = 1_000_000
BYTES_DEFAULT: Final = GIB
"""Without `records` and `duration_s`, no more than this is sent."""
LATENCY_S_DEFAULT: Final = 10.0
LATENCY_RATE_DEFAULT: Final = 1_000.0
CHUNK_BYTES: Final = MIB
"""About so much goes into one call of `send_many`, and no more than CHUNK_RECORDS."""
CHUNK_RECORDS: Final = 8_192
ONE_BY_ONE_RECORDS: Final = 64
"""Calls of `send` between two looks at the clock and at the answers."""
KEYS_MAX: Final = 1_000_000
"""All are made before the start."""
FIGURE_MAX: Final = 1e15
"""Records, records a second and seconds stay below: they are multiplied with nanoseconds."""
BATCH_SIZE_MAX: Final = BATCH_BYTES_MAX - MIB
"""What a producer takes as `batch_size`."""
OF_WRITING: Final = (
    "producers", "record_bytes", "acks", "compression", "keys", "batch_bytes", "linger_ms", "one_by_one",
    "verify",
)  # fmt: skip
"""The fields that say nothing where nothing is written, but what is there is read."""
OF_READING: Final = ("consumers", "poll")
"""The fields that say nothing where nothing is read."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One load test. `records`, and `rate` in records a second, are those of all producers together.

    Sizes in bytes. Sends until `records` are sent or `duration_s` seconds are over, whichever comes first;
    consumers that are measured alone read what there is again until `duration_s` is over. `keys` is how
    many different keys there are, 0 for none. `run` tells this run's records from others in the topic.

    `existing`: the topic was there before, and stays. Consumers that are measured alone then read what it
    holds, no more than `records` of that, and nothing is written. `nodes` and how they `flush`: None for
    what is not known.
    """

    mode: Mode
    bootstrap_servers: str = ""
    topic: str = ""
    existing: bool = False
    run: int = 0
    producers: int = 1
    consumers: int = 1
    partitions: int = 1
    replication_factor: int = 1
    nodes: int | None = None
    flush: Literal["commit", "relaxed"] | None = None
    record_bytes: int = 100
    records: int | None = None
    duration_s: float | None = None
    rate: float | None = None
    acks: Literal["all", "1", "0"] = "all"
    compression: str | None = None
    keys: int = 0
    batch_bytes: int = 512 * KIB
    linger_ms: float = 5.0
    local: bool = True
    verify: bool = False
    one_by_one: bool = False
    poll: bool = False
    timeout_s: float = 30.0

    @property
    def only_reads(self) -> bool:
        """Is nothing written at all?"""
        return self.existing and self.mode == "consume"

    @property
    def warm_up_records(self) -> int:
        """Empty records that open connections before the start: each producer's to each partition."""
        return 0 if self.only_reads else self.producers * self.partitions

    @property
    def marked(self) -> bool:
        """Does every record begin with a header (`records`)?"""
        return self.verify or self.mode == "latency" or (self.mode == "e2e" and self.rate is not None)

    @property
    def chunk_records(self) -> int:
        """Records of one call of `send_many`."""
        return max(1, min(CHUNK_RECORDS, CHUNK_BYTES // self.record_bytes))

    @property
    def step_records(self) -> int:
        """Records that a producer sends between two looks at the clock at most; so many values are made."""
        if self.mode == "latency":
            return 1
        return ONE_BY_ONE_RECORDS if self.one_by_one else self.chunk_records

    @property
    def producer_options(self) -> dict[str, object]:
        """As `Producer` takes them."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "acks": self.acks if self.acks == "all" else int(self.acks),
            "batch_size": self.batch_bytes,
            "compression_type": self.compression,
            "linger_ms": self.linger_ms,
            "max_block_ms": round(self.timeout_s * 1000),
        }

    @property
    def consumer_options(self) -> dict[str, object]:
        """As `Consumer` takes them."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "request_timeout_ms": round(self.timeout_s * 1000),
        }

    def share(self, index: int) -> int | None:
        """How many of the records producer `index` sends."""
        if self.records is None:
            return None
        return self.records // self.producers + (index < self.records % self.producers)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one client does in a test.

    `measure`: are latencies taken? `starts` are a consumer's partitions and where it begins in each;
    with `repeat` it begins again there until `duration_s` is over.
    """

    spec: Spec
    role: Role
    index: int
    measure: bool = True
    starts: dict[int, int] = {}
    repeat: bool = False

    @property
    def name(self) -> str:
        """`producer 0`"""
        return f"{self.role} {self.index}"


def completed(spec: Spec) -> Spec:
    """With the defaults of its mode, checked. Raises InvalidArgumentError with what would fit."""
    if spec.mode == "latency":
        rate = LATENCY_RATE_DEFAULT if spec.rate is None else spec.rate
        unbounded = spec.duration_s is None and spec.records is None
        duration_s = LATENCY_S_DEFAULT if unbounded else spec.duration_s
        spec = msgspec.structs.replace(spec, rate=rate, duration_s=duration_s)
    _check_sizes(spec)
    bounded = spec.only_reads or (spec.duration_s is not None and spec.mode != "consume")
    if spec.records is None and not bounded:
        records = max(1, min(RECORDS_DEFAULT, BYTES_DEFAULT // spec.record_bytes))
        spec = msgspec.structs.replace(spec, records=records)
    _check_sense(spec)
    return spec


def check_shares(spec: Spec) -> None:
    """Is there a partition for every consumer that reads? Raises InvalidArgumentError."""
    reading = spec.mode != "produce" or spec.verify
    if reading and spec.consumers > spec.partitions:
        raise InvalidArgumentError(
            f"{plural(spec.consumers, 'consumer')} cannot share {plural(spec.partitions, 'partition')}: "
            f"give at least {spec.consumers} partitions"
        )


def _check_sizes(spec: Spec) -> None:
    for name, count, most in (
        ("producers", spec.producers, CLIENTS_MAX),
        ("consumers", spec.consumers, CLIENTS_MAX),
        ("partitions", spec.partitions, PARTITIONS_PER_TOPIC_MAX),
        ("replication_factor", spec.replication_factor, REPLICATION_FACTOR_MAX),
    ):
        if not 1 <= count <= most:
            raise InvalidArgumentError(f"{name} is {count}; it is 1 to {most}")
    if not 0 <= spec.keys <= KEYS_MAX:
        raise InvalidArgumentError(f"keys is {spec.keys}; it is 0 (none) to {KEYS_MAX}")
    least, most = HEADER_BYTES if spec.marked else 1, RECORD_BYTES_MAX - key_bytes_max(spec.keys)
    if not least <= spec.record_bytes <= most:
        why = " (a header that tells records apart and when they were sent)" if spec.marked else ""
        beside = " beside a key" if spec.keys else ""
        raise InvalidArgumentError(
            f"record_bytes is {spec.record_bytes}; it is {least}{why} to {most}{beside} here"
        )
    if not 1 <= spec.batch_bytes <= BATCH_SIZE_MAX:
        raise InvalidArgumentError(f"batch_bytes is {spec.batch_bytes}; it is 1 to {BATCH_SIZE_MAX}")
    if not 0 <= spec.linger_ms < 1e9:
        raise InvalidArgumentError(f"linger_ms is {spec.linger_ms:g}; it is 0 or more")
    for name, value in (("records", spec.records), ("duration_s", spec.duration_s), ("rate", spec.rate)):
        if value is not None and not 0 < value < FIGURE_MAX:
            raise InvalidArgumentError(f"{name} is {value:g}; it is more than 0, below {FIGURE_MAX:g}")


def _check_sense(spec: Spec) -> None:
    """What does not go together."""
    if spec.records is not None and spec.records < spec.producers:
        raise InvalidArgumentError(f"{spec.records} records are too few for {spec.producers} producers")
    if spec.verify and spec.acks == "0":
        raise InvalidArgumentError("with acks=0 nothing is acknowledged: there is nothing to verify")
    if spec.mode == "consume" and spec.verify and spec.duration_s is not None:
        raise InvalidArgumentError(
            "with a duration, consumers read the records again and again: verify without it"
        )
    if spec.mode == "consume" and spec.rate is not None:
        raise InvalidArgumentError("consumers read as fast as they can: a rate is for producers")
