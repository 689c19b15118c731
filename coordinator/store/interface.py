"""What the coordinator asks of its stores."""

from collections.abc import Sequence
from typing import Protocol

from tailrace.protocol.messages import Update

from ..groups.changes import GroupChange
from ..groups.state import GroupsState
from ..private_state import PrivateChange
from ..state import State


class Store(Protocol):
    """Keeps the state across restarts. Belongs to one thread, and to one coordinator at a time."""

    def load(self) -> State:
        """The state after the last commit. Raises DataFolderError when it cannot be read."""

    def commit(self, updates: Sequence[Update], private: Sequence[PrivateChange]) -> None:
        """Make changes durable, all or none; on return they survive a power loss.

        Raises StorageFaultError; then it is unknown whether they are stored, and the coordinator
        must stop and load again.
        """

    def close(self) -> None:
        """Give the store back."""


class GroupStore(Protocol):
    """Keeps groups and their offsets across restarts; as `Store` keeps the rest."""

    def load(self) -> GroupsState:
        """The groups after the last commit. Raises DataFolderError when they cannot be read."""

    def commit(self, changes: Sequence[GroupChange]) -> None:
        """As `Store.commit`."""

    def close(self) -> None:
        """Give the store back."""
