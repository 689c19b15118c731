"""What an application is told when partitions come and go."""

from collections.abc import Collection
from functools import partial
from typing import Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

from .one_thread import OneThread

_PREFIX: Final = "on_partitions_"


def refuse_other_names(listener: type) -> None:
    """Raises InvalidArgumentError for a method with kafka-python's name alone, which nobody would call."""
    for name in vars(listener):
        ours = name.replace(_PREFIX, "on_")
        if name.startswith(_PREFIX) and ours not in vars(listener):
            raise InvalidArgumentError(f"{listener.__name__}.{name} is never called: its name is {ours} here")


class RebalanceListener:
    """Override what you need. Called in the application's thread, within the call that asks for records,
    `subscribe`, `unsubscribe` or `close`; what a method raises, that call raises.
    """

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        refuse_other_names(cls)

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These are read from now on; their positions are known, and may be changed by `seek`."""

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These go to another member when this returns: `commit` still works."""

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """These are another member's already, or may be: what was not committed is read again there."""


class LetIn(RebalanceListener):
    """The application's listener, which may call the consumer that it belongs to."""

    def __init__(self, listener: RebalanceListener, one_thread: OneThread) -> None:
        self._listener = listener
        self._one_thread = one_thread

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._one_thread.let_in(partial(self._listener.on_assigned, partitions))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._one_thread.let_in(partial(self._listener.on_revoked, partitions))

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._one_thread.let_in(partial(self._listener.on_lost, partitions))
