"""What a decider returns: what to change and what to answer. Deciders change nothing themselves."""

from typing import NamedTuple

from tailrace.protocol.cluster import Change
from tailrace.protocol.messages import Reply

from .private_state import PrivateChange


class Decision(NamedTuple):
    """The outcome of one event.

    `changes` become one version of the cluster state and are published; an update names each
    partition at most once. `opening` is a topic whose request is answered once the leaders of
    its partitions from `first_opening` on have opened them: then there is no `reply` yet.
    `warnings` and `notes` are for the log. `unclean`: how many replicas were elected that may lack records.
    """

    reply: Reply | None = None
    changes: tuple[Change, ...] = ()
    private: tuple[PrivateChange, ...] = ()
    opening: bytes | None = None
    first_opening: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unclean: int = 0
