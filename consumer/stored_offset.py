"""What is stored of a partition's position, wherever it is stored."""

import msgspec


class StoredOffset(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on reading.

    `leader_epoch` is that of the record before `offset`, -1 if unknown. `partition_count` is how many
    partitions the topic had then: those with higher numbers have come since, and were read by nobody.
    """

    offset: int
    leader_epoch: int = -1
    partition_count: int = 0
    metadata: str = ""
