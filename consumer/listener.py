"""What an application is told when partitions come and go."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

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


class Through(RebalanceListener):
    """A listener whose methods are called by `call`, since the application's cannot be called as they are."""

    def __init__(self, listener: Any, call: Callable[[Callable[[], Any]], object]) -> None:
        self._listener = listener
        self._call = call

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._call(partial(self._listener.on_assigned, partitions))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._call(partial(self._listener.on_revoked, partitions))

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """As there."""
        self._call(partial(self._listener.on_lost, partitions))
