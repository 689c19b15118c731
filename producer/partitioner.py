"""Which partition a record goes to.

- `crc32` (default): CRC-32 of the key modulo the number of partitions; no key or an empty one counts as
  "no key". The same choice as librdkafka's `consistent_random`, the default of confluent-kafka.
- `murmur2`: Java's and kafka-python's choice; an empty key is a key.
- a callable `(key, all_partitions, available_partitions) -> partition`, asked for every record that names no
  partition, with and without key (kafka-python's signature); `available` are those that have a leader.

Records without a key go to one partition until its batch is full, then to the next (KIP-480, sticky).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias
from zlib import crc32

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.similar import did_you_mean

KeyHash: TypeAlias = Callable[[bytes], int]
CustomPartitioner: TypeAlias = Callable[[bytes | None, Sequence[int], Sequence[int]], int]
PartitionerOption: TypeAlias = str | CustomPartitioner

MURMUR2_KEYS_CACHED: Final = 16_384
"""Hashes kept: the hash is plain Python, and most applications have few keys."""

_MASK: Final = 0xFFFFFFFF
_MULTIPLIER: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C


@lru_cache(maxsize=MURMUR2_KEYS_CACHED)
def murmur2(key: bytes) -> int:
    """MurmurHash2 (32 bits) as Kafka's `Utils.murmur2` has it, made positive as its partitioner does."""
    length = len(key)
    whole = length & ~3
    value = _SEED ^ length
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        value = value * _MULTIPLIER & _MASK ^ word
    if length > whole:
        value = (value ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return (value ^ value >> 15) & 0x7FFFFFFF


class Partitioner:
    """One of the three rules above.

    `key_hash` is None for a callable of the user's, which `choose` asks.
    """

    __slots__ = ("_custom", "empty_is_key", "key_hash")

    def __init__(self, option: PartitionerOption) -> None:
        """Raises InvalidArgumentError."""
        self.key_hash: KeyHash | None = None
        self.empty_is_key = False
        self._custom: CustomPartitioner | None = None
        if option == "crc32":
            self.key_hash = crc32
        elif option == "murmur2":
            self.key_hash = murmur2
            self.empty_is_key = True
        elif callable(option):
            self._custom = option
        else:
            hint = did_you_mean(option, ("crc32", "murmur2")) if isinstance(option, str) else ""
            raise InvalidArgumentError(
                f"partitioner={option!r}: give 'crc32', 'murmur2' or a callable"
                f" (key, all_partitions, available_partitions) -> partition{hint}"
            )

    def place(self, key: bytes | None, count: int, available: Sequence[int]) -> int | None:
        """The partition of a record that names none; None: wherever records without a key go now."""
        if self.key_hash is None:
            return self.choose(key, count, available)
        if key or (key is not None and self.empty_is_key):
            return self.key_hash(key) % count
        return None

    def choose(self, key: bytes | None, count: int, available: Sequence[int]) -> int:
        """The partition that the user's callable names; InvalidArgumentError if it is none of `count`."""
        assert self._custom is not None
        chosen = self._custom(key, range(count), available or range(count))
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < count:
            raise InvalidArgumentError(
                f"the partitioner gave {chosen!r}; the partitions are 0 to {count - 1}"
            )
        return chosen


class Rotation:
    """Takes turns over the partitions that have a leader, so that records without a key spread evenly."""

    __slots__ = ("_next",)

    def __init__(self, start: int) -> None:
        self._next = start

    def turn(self, count: int, available: Sequence[int]) -> int:
        """The next partition of `available`, or of all `count` when none is."""
        pool: Sequence[int] = available or range(count)
        self._next = (self._next + 1) % len(pool)
        return pool[self._next]
