"""The fetches in flight: which partitions wait for which, and when a node may be asked again. Pure.

A partition is in one flight at most. Taking it out of its flight is how a reply is made stale: what
arrives later counts only for the partitions that are still in.
"""

import logging
from itertools import count
from random import Random
from typing import Final, NamedTuple

from tailrace.client.retry import Backoff
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import FETCH_SLOT_BYTES_FIRST, FETCH_SLOT_BYTES_MAX, FETCHES_PER_NODE_MAX

from .assigned import NO_FETCH, AssignedPartition, Key

ROOM_FACTOR: Final = 4
"""A reply gets so many times the room that the one before it has used: it costs nothing if it stays free."""

_log = logging.getLogger(__name__)


class Flight(NamedTuple):
    """A fetch in flight, and the partitions that still wait for its reply."""

    fetch_id: int
    node_id: int
    partitions: dict[Key, AssignedPartition]


class Node:
    """What is known of reaching a node."""

    __slots__ = ("backoff", "failing", "flights", "retry_at", "room")

    def __init__(self, random: Random) -> None:
        self.flights: set[int] = set()
        """Those that some partition waits for."""
        self.backoff = Backoff(random)
        self.retry_at = 0.0
        self.failing = False
        self.room = FETCH_SLOT_BYTES_FIRST


class Flights:
    """Departures and landings. `random` spreads the pauses between attempts."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._flights: dict[int, Flight] = {}
        self._nodes: dict[int, Node] = {}
        self._fetch_ids = count(NO_FETCH + 1)

    def may_depart(self, node_id: int) -> bool:
        """Is there room for one more fetch at the node?"""
        return len(self._node(node_id).flights) < FETCHES_PER_NODE_MAX

    def retry_at(self, node_id: int) -> float:
        """Not before this (monotonic seconds) is the node asked again."""
        return self._node(node_id).retry_at

    def depart(self, node_id: int, partitions: dict[Key, AssignedPartition]) -> Flight:
        """A fetch for these partitions is sent to the node."""
        flight = Flight(next(self._fetch_ids), node_id, partitions)
        self._flights[flight.fetch_id] = flight
        self._node(node_id).flights.add(flight.fetch_id)
        for partition in partitions.values():
            partition.fetch = flight.fetch_id
        return flight

    def recall(self, partition: AssignedPartition) -> None:
        """Take the partition out of its flight. Nobody's flight does not keep another from departing."""
        flight = self._flights[partition.fetch]
        partition.fetch = NO_FETCH
        del flight.partitions[partition.key]
        if not flight.partitions:
            self._node(flight.node_id).flights.discard(flight.fetch_id)

    def land(self, fetch_id: int) -> Flight:
        """The fetch is over, one way or another; its partitions can be fetched again."""
        flight = self._flights.pop(fetch_id)
        self._node(flight.node_id).flights.discard(fetch_id)
        for partition in flight.partitions.values():
            partition.fetch = NO_FETCH
        return flight

    def reached(self, node_id: int) -> None:
        """The node has answered."""
        node = self._node(node_id)
        node.backoff.reset()
        node.retry_at = 0.0
        if node.failing:
            node.failing = False
            _log.info("fetching from node %d goes on", node_id)

    def room(self, node_id: int) -> int:
        """Bytes to keep free for the node's next reply."""
        return self._node(node_id).room

    def brought(self, node_id: int, size: int) -> None:
        """A reply had batches of so many bytes: the next may have more."""
        self._node(node_id).room = min(max(ROOM_FACTOR * size, FETCH_SLOT_BYTES_FIRST), FETCH_SLOT_BYTES_MAX)

    def elected(self, node_id: int) -> None:
        """The node leads something from now on, and so is alive: what it missed before says nothing."""
        node = self._node(node_id)
        node.backoff.reset()
        node.retry_at = 0.0

    def missed(self, node_id: int, error: TailraceError, now: float) -> None:
        """The node could not be asked, or did not answer: pause. Told once until it answers again."""
        node = self._node(node_id)
        node.retry_at = now + node.backoff.pause()
        if not node.failing:
            node.failing = True
            _log.warning("fetching from node %d: %s; trying again", node_id, error)

    def _node(self, node_id: int) -> Node:
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = Node(self._random)
        return node
