"""The fetches in flight: which partitions wait for which, and when a node may be asked again. Pure.

A partition is in one flight at most. Taking it out of its flight is how a reply is made stale: what
arrives later counts only for the partitions that are still in.

A node remembers the partitions of a flight (`docs/protocol.md`, *Fetch sessions*): the fetch that resumes a
flight names those alone that have joined it since, and costs nothing for all that it goes on to wait for.
"""

import logging
from collections.abc import Mapping
from itertools import count
from random import Random
from typing import Final

from tailrace.client.retry import Backoff
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import (
    FETCH_SLOT_BYTES_FIRST,
    FETCH_SLOT_BYTES_MAX,
    FETCHES_PER_NODE_MAX,
    LOCAL_PAYLOAD_BYTES_MIN,
    PARTITIONS_PER_REQUEST_MAX,
)

from .assigned import NO_FETCH, AssignedPartition, Key

ROOM_FACTOR: Final = 4
"""A reply gets so many times the room that the one before it has used: it costs nothing if it stays free."""

_log = logging.getLogger(__name__)


class Flight:
    """A question to a node: a look-up, or the fetches of one session, one after the other.

    `partitions` wait for an answer. When the reply to a fetch is there the flight rests, and the next fetch
    resumes it; unless it is `over`, as its partitions are not all that the node takes them for any more.
    """

    __slots__ = ("epoch", "fetch_id", "in_air", "node_id", "number", "over", "partitions", "retried")

    def __init__(self, fetch_id: int, node_id: int, number: int) -> None:
        self.fetch_id = fetch_id
        self.node_id = node_id
        self.number = number
        """The session's. The node takes a new one with the number of an old one in its place."""
        self.epoch = 0
        self.in_air = False
        self.over = False
        self.partitions: dict[Key, AssignedPartition] = {}
        self.retried: list[AssignedPartition] = []
        """Those that were refused before, and are asked for again."""


class Node:
    """What is known of reaching a node."""

    __slots__ = ("backoff", "failing", "flights", "numbers", "resting", "retry_at", "room")

    def __init__(self, random: Random) -> None:
        self.flights: set[int] = set()
        """Those in the air that some partition waits for."""
        self.resting: dict[int, Flight] = {}
        self.numbers: set[int] = set()
        """Of all flights, in the air or resting."""
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

    def space(self, node_id: int) -> int:
        """How many partitions may be named to the node next: half of what a request may have, since a look-up
        has two queries for each, and a flight that is resumed no more in all."""
        resting = next(iter(self._node(node_id).resting.values()), None)
        return PARTITIONS_PER_REQUEST_MAX // 2 - (len(resting.partitions) if resting else 0)

    def resting(self) -> list[Flight]:
        """The flights that can be resumed."""
        return [flight for node in self._nodes.values() for flight in node.resting.values()]

    def depart(self, node_id: int, partitions: Mapping[Key, AssignedPartition]) -> Flight:
        """A question about these partitions is sent to the node."""
        node = self._node(node_id)
        number = next(number for number in count(1) if number not in node.numbers)
        node.numbers.add(number)
        flight = Flight(next(self._fetch_ids), node_id, number)
        self._flights[flight.fetch_id] = flight
        self._send(flight, partitions)
        return flight

    def resume(self, flight: Flight, partitions: Mapping[Key, AssignedPartition]) -> None:
        """The next fetch of its session is sent, which names these partitions."""
        del self._node(flight.node_id).resting[flight.fetch_id]
        flight.epoch += 1
        self._send(flight, partitions)

    def land(self, fetch_id: int) -> Flight:
        """There is an answer, or there will be none."""
        flight = self._flights[fetch_id]
        flight.in_air = False
        self._nodes[flight.node_id].flights.discard(fetch_id)
        return flight

    def rest(self, flight: Flight) -> dict[Key, AssignedPartition]:
        """The answer was taken in: who has got none goes on waiting. If that cannot be, those who waited."""
        if flight.over or not flight.partitions:
            return self.dissolve(flight)
        self._node(flight.node_id).resting[flight.fetch_id] = flight
        return {}

    def dissolve(self, flight: Flight) -> dict[Key, AssignedPartition]:
        """The flight is not resumed. Its partitions, which can be asked for again."""
        node = self._node(flight.node_id)
        node.resting.pop(flight.fetch_id, None)
        node.numbers.discard(flight.number)
        del self._flights[flight.fetch_id]
        for partition in flight.partitions.values():
            partition.fetch = NO_FETCH
        return flight.partitions

    def recall(self, partition: AssignedPartition) -> dict[Key, AssignedPartition]:
        """Take the partition out of its flight: what that brings of it does not count.

        Nobody's flight does not keep another from departing. Gives those who can be asked for again.
        """
        flight = self._flights[partition.fetch]
        partition.fetch = NO_FETCH
        del flight.partitions[partition.key]
        if not flight.partitions:
            self._node(flight.node_id).flights.discard(flight.fetch_id)
        return {partition.key: partition} | self._end(flight)

    def end(self, partition: AssignedPartition) -> dict[Key, AssignedPartition]:
        """The next fetch begins without the partition. Gives those who can be asked for again."""
        return self._end(self._flights[partition.fetch])

    def _end(self, flight: Flight) -> dict[Key, AssignedPartition]:
        flight.over = True
        return {} if flight.in_air else self.dissolve(flight)

    def _send(self, flight: Flight, partitions: Mapping[Key, AssignedPartition]) -> None:
        flight.in_air = True
        self._node(flight.node_id).flights.add(flight.fetch_id)
        flight.partitions.update(partitions)
        flight.retried = [partition for partition in partitions.values() if partition.retry_at]
        for partition in partitions.values():
            partition.fetch = flight.fetch_id

    def reached(self, node_id: int) -> None:
        """The node has answered."""
        node = self._node(node_id)
        node.backoff.reset()
        node.retry_at = 0.0
        if node.failing:
            node.failing = False
            _log.info("fetching from node %d goes on", node_id)

    def room(self, node_id: int) -> int:
        """Bytes to keep free for the node's next reply; none if that comes in frames, as little does."""
        return self._node(node_id).room

    def brought(self, node_id: int, size: int) -> None:
        """A reply had batches of so many bytes: the next may have more."""
        room = ROOM_FACTOR * size
        little = 0 < room < LOCAL_PAYLOAD_BYTES_MIN
        at_least = min(max(room, FETCH_SLOT_BYTES_FIRST), FETCH_SLOT_BYTES_MAX)
        self._node(node_id).room = 0 if little else at_least

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
