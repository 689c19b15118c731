"""A rebalance listener whose methods are coroutines."""

from collections.abc import Collection

from tailrace.protocol.record import TopicPartition

from .listener import refuse_other_names


class AsyncRebalanceListener:
    """Override what you need. As `RebalanceListener`, but for coroutines: they run in the loop, and the call
    that found the change waits for them. Within them the consumer's other calls work, but for reading.
    """

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        refuse_other_names(cls)

    async def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are read from now on; their positions are known, and may be changed by `seek`."""

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These go to another member when this returns: `commit` still works."""

    async def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """These are another member's already, or may be: what was not committed is read again there."""
