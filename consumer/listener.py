"""What an application is told when partitions come and go."""

from collections.abc import Collection

from tailrace.protocol.record import TopicPartition


class RebalanceListener:
    """Override what you need. Called in the application's thread, within the call that asks for records,
    `subscribe`, `unsubscribe` or `close`; what a method raises, that call raises.
    """

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are read from now on; their positions are known, and may be changed by `seek`."""

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These go to another member when this returns: `commit` still works."""

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """These are another member's already, or may be: what was not committed is read again there."""
