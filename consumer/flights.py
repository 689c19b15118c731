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


class Node:
    """What is known of reaching a node."""

    __slots__ = ("backoff", "failing", "flights", "node_id", "numbers", "resting", "retry_at", "room")

    def __init__(self, node_id: int, random: Random) -> None:
        self.node_id = node_id
        self.flights: set[int] = set()
        """Those in the air that some partition waits for."""
        self.resting: dict[int, Flight] = {}
        """Those that can be resumed."""
        self.numbers: set[int] = set()
        """Of all flights, in the air or resting."""
        self.backoff = Backoff(random)
        self.retry_at = 0.0
        """Not before this (monotonic seconds) is the node asked again."""
        self.failing = False
        """Has it missed something since it answered last?"""
        self.room = FETCH_SLOT_BYTES_FIRST
        """Bytes to keep free for its next reply; none if that comes in frames, as little does."""

    def space(self) -> int:
        """How many partitions may be named to it next: none while no more fetches may depart.

        Half of what a request may have, since a look-up has two queries for each; and a flight that is
        resumed has no more in all.
        """
        if len(self.flights) >= FETCHES_PER_NODE_MAX:
            return 0
        named = PARTITIONS_PER_REQUEST_MAX // 2
        if self.resting:
            named -= len(next(iter(self.resting.values())).partitions)
        return named

    def reached(self) -> None:
        """It has answered."""
        if self.failing:
            self.failing = False
            self.forgive()
            _log.info("fetching from node %d goes on", self.node_id)

    def brought(self, size: int) -> None:
        """Its answer had batches of so many bytes: the next may have more, but little comes after little.

        No bytes are a pause: what trickled in before it goes on to, as far as anybody knows.
        """
        if 0 < size < LOCAL_PAYLOAD_BYTES_MIN:
            self.room = 0
        elif size or self.room:
            self.room = min(max(ROOM_FACTOR * size, FETCH_SLOT_BYTES_FIRST), FETCH_SLOT_BYTES_MAX)

    def forgive(self) -> None:
        """It is alive: what it missed before says nothing."""
        self.backoff.reset()
        self.retry_at = 0.0

    def missed(self, error: TailraceError, now: float) -> None:
        """It could not be asked, or did not answer: pause. Told once until it answers again."""
        self.retry_at = now + self.backoff.pause()
        if not self.failing:
            self.failing = True
            _log.warning("fetching from node %d: %s; trying again", self.node_id, error)


class Flight:
    """A question to a node: a look-up, or the fetches of one session, one after the other.

    `partitions` wait for an answer. When the reply to a fetch is there the flight rests, and the next fetch
    resumes it; unless it is `over`, as its partitions are not all that the node takes them for any more.
    """

    __slots__ = ("epoch", "fetch_id", "in_air", "node", "number", "over", "partitions", "retried")

    def __init__(self, fetch_id: int, node: Node, number: int) -> None:
        self.fetch_id = fetch_id
        self.node = node
        self.number = number
        """The session's; 0 once nobody waits for it. The node takes a new one with the number of an old one
        in its place, and answers what waits there."""
        self.epoch = 0
        self.in_air = False
        self.over = False
        self.partitions: dict[Key, AssignedPartition] = {}
        self.retried: list[AssignedPartition] = []
        """Those that were refused before, and are asked for again."""


class Flights:
    """Departures and landings. `random` spreads the pauses between attempts."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.by_id: dict[int, Flight] = {}
        """All of them, in the air or resting."""
        self.nodes: dict[int, Node] = {}
        """Those that were asked for by `node`."""
        self._fetch_ids = count(NO_FETCH + 1)

    def node(self, node_id: int) -> Node:
        """What is known of a node; not much of one that is new."""
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = Node(node_id, self._random)
        return node

    def depart(self, node: Node, partitions: Mapping[Key, AssignedPartition]) -> Flight:
        """A question about these partitions is sent to the node."""
        number = 1
        while number in node.numbers:
            number += 1
        node.numbers.add(number)
        flight = Flight(next(self._fetch_ids), node, number)
        self.by_id[flight.fetch_id] = flight
        self._send(flight, partitions)
        return flight

    def resume(self, flight: Flight, partitions: Mapping[Key, AssignedPartition]) -> None:
        """The next fetch of its session is sent, which names these partitions."""
        del flight.node.resting[flight.fetch_id]
        flight.epoch += 1
        self._send(flight, partitions)

    def in_air(self, fetch_id: int, epoch: int) -> Flight | None:
        """The flight whose fetch of this number in its session has no answer yet; None if it has."""
        flight = self.by_id.get(fetch_id)
        return flight if flight is not None and flight.in_air and flight.epoch == epoch else None

    def land(self, fetch_id: int) -> Flight:
        """There is an answer, or there will be none."""
        flight = self.by_id[fetch_id]
        flight.in_air = False
        flight.node.flights.discard(fetch_id)
        return flight

    def rest(self, flight: Flight) -> dict[Key, AssignedPartition]:
        """The answer was taken in: who has got none goes on waiting. If that cannot be, those who waited."""
        if flight.over or not flight.partitions:
            return self.dissolve(flight)
        flight.node.resting[flight.fetch_id] = flight
        return {}

    def dissolve(self, flight: Flight) -> dict[Key, AssignedPartition]:
        """The flight is not resumed. Its partitions, which can be asked for again."""
        flight.node.resting.pop(flight.fetch_id, None)
        flight.node.numbers.discard(flight.number)
        del self.by_id[flight.fetch_id]
        for partition in flight.partitions.values():
            partition.fetch = NO_FETCH
        return flight.partitions

    def recall(self, partition: AssignedPartition) -> dict[Key, AssignedPartition]:
        """Take the partition out of its flight: what that brings of it does not count.

        Nobody's flight does not keep another from departing, which has its number, and so ends its wait at
        the node. Gives those who can be asked for again.
        """
        flight = self.by_id[partition.fetch]
        partition.fetch = NO_FETCH
        del flight.partitions[partition.key]
        if not flight.partitions:
            node = flight.node
            node.flights.discard(flight.fetch_id)
            node.numbers.discard(flight.number)
            flight.number = 0
        return {partition.key: partition} | self._end(flight)

    def end(self, partition: AssignedPartition) -> dict[Key, AssignedPartition]:
        """The next fetch begins without the partition. Gives those who can be asked for again."""
        return self._end(self.by_id[partition.fetch])

    def _end(self, flight: Flight) -> dict[Key, AssignedPartition]:
        flight.over = True
        return {} if flight.in_air else self.dissolve(flight)

    def _send(self, flight: Flight, partitions: Mapping[Key, AssignedPartition]) -> None:
        flight.in_air = True
        flight.node.flights.add(flight.fetch_id)
        flight.partitions.update(partitions)
        flight.retried = []
        for partition in partitions.values():
            partition.fetch = flight.fetch_id
            if partition.retry_at:
                flight.retried.append(partition)
