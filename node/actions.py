"""What the membership asks the main loop to do. Values only."""

from dataclasses import dataclass
from typing import TypeAlias

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import CoordinatorRequest


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to this endpoint; no connection is open now."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection, if one is open."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to this publisher, in place of any other."""

    publisher: Listener


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request to the coordinator."""

    request: CoordinatorRequest


@dataclass(frozen=True, slots=True)
class Follow:
    """The state moved on: `touched` topics (None: all) may be assigned anew, `deleted` ones go."""

    touched: frozenset[bytes] | None
    deleted: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Report:
    """Something an operator should read; a problem unless `good`."""

    text: str
    good: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The node cannot become a member of this cluster."""

    error: TailraceError


Action: TypeAlias = Connect | Disconnect | Subscribe | Ask | Follow | Report | GiveUp
