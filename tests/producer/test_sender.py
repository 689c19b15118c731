"""How lanes share requests, nodes and identities."""

from math import inf
from random import Random

import pytest

from tailrace.producer.batch import ANONYMOUS, Batch, Identity
from tailrace.producer.sender import Sender, Shipment
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import (
    BatchTooLargeError,
    ConnectionFailedError,
    ErrorCode,
    FencedProducerError,
    InvalidConfigError,
    StorageFullError,
    UnknownTopicError,
)
from tailrace.protocol.limits import (
    IN_FLIGHT_BATCHES_MAX,
    MIB,
    PRODUCE_BATCHES_MAX,
    PRODUCE_IN_FLIGHT_BYTES_MAX,
    PRODUCE_REQUEST_BYTES,
)
from tailrace.protocol.messages import OK, ProduceResult

from .model import TOPIC_ID, refusal, sealed

FIRST = Identity(7, 0)


class World:
    """A sender; partition p is led by node `leaders[p]`, in epoch 3."""

    def __init__(self, leaders: dict[int, int], *, idempotent: bool = True, identified: bool = True) -> None:
        self.now = 10.0
        self.leaders = leaders
        self.sender = Sender(idempotent=idempotent, lookup=self._lookup, random=Random(1))
        if idempotent and identified:
            assert self.sender.ask_identity(self.now) == ANONYMOUS
            self.sender.identified(FIRST, self.now)

    def _lookup(self, _topic_id: bytes, partition: int) -> PartitionInfo | None:
        if partition not in self.leaders:
            return None
        return PartitionInfo((1,), self.leaders[partition], 3, 0, (1,))

    def add(self, partition: int, count: int = 1, size: int = 100) -> list[Batch]:
        batches = [sealed(partition, 1, self.now) for _ in range(count)]
        for batch in batches:
            batch.size = size
            self.sender.add(batch, self.now)
        return batches

    def ship(self) -> list[Shipment]:
        shipments = []
        while (shipment := self.sender.next_shipment(self.now)) is not None:
            shipments.append(shipment)
        return shipments

    def retry(self) -> list[Shipment]:
        """What is sent once the pause after a failure is over."""
        self.now += 2.0
        self.sender.tick(self.now)
        return self.ship()


def stored(shipment: Shipment) -> list[ProduceResult]:
    return [ProduceResult(OK, 0, 0)] * len(shipment.batches)


def test_partitions_of_one_node_share_a_request_in_turn() -> None:
    world = World({0: 1, 1: 1, 2: 2})
    first, second = world.add(0, 2), world.add(1, 2)
    world.add(2)
    one, two = world.ship()
    assert (one.node_id, two.node_id) == (1, 2)
    assert one.batches == [first[0], second[0], first[1], second[1]]
    assert [(entry.topic_id, entry.partition, entry.leader_epoch) for entry in one.entries] == [
        (TOPIC_ID, partition, 3) for partition in (0, 1, 0, 1)
    ]
    assert world.sender.batches_in_flight == 5


def test_requests_are_bounded_in_bytes_and_batches() -> None:
    world = World(dict.fromkeys(range(12), 1))
    for partition in range(12):
        world.add(partition, IN_FLIGHT_BATCHES_MAX)
    assert [len(shipment.batches) for shipment in world.ship()] == [PRODUCE_BATCHES_MAX, 128]
    world = World({0: 1})
    world.add(0, 4, PRODUCE_REQUEST_BYTES // 2)
    world.add(0, 1, PRODUCE_REQUEST_BYTES * 3)
    assert [len(shipment.batches) for shipment in world.ship()] == [2, 2, 1]


def test_bytes_in_flight_to_a_node_are_bounded() -> None:
    world = World({0: 1, 1: 1, 2: 2})
    world.add(0, 20, 2 * MIB)
    world.add(1, 20, 2 * MIB)
    shipments = world.ship()
    assert sum(shipment.size for shipment in shipments) == PRODUCE_IN_FLIGHT_BYTES_MAX
    assert not world.sender.wanted(sealed(1, 1, world.now), world.now)
    world.add(2)
    assert [shipment.node_id for shipment in world.ship()] == [2]
    world.sender.answered(shipments[0], stored(shipments[0]), world.now)
    assert len(world.ship()) == 1


def test_nothing_is_sent_before_there_is_an_identity() -> None:
    world = World({0: 1}, identified=False)
    world.add(0)
    assert world.ship() == []
    assert world.sender.due_at == 0.0
    assert world.sender.ask_identity(world.now) == ANONYMOUS
    assert world.sender.ask_identity(world.now) is None
    world.sender.unidentified(ConnectionFailedError("refused"), world.now)
    assert world.sender.ask_identity(world.now) is None
    again = world.sender.due_at
    assert world.now < again < inf
    assert world.sender.ask_identity(again) == ANONYMOUS
    world.sender.identified(FIRST, world.now)
    assert len(world.ship()) == 1


def test_a_fenced_bump_asks_for_a_new_producer_id() -> None:
    """Its answer got lost: the coordinator has raised the epoch already."""
    world = World({0: 1})
    (batch,) = world.add(0)
    (shipment,) = world.ship()
    world.sender.lost(shipment, ConnectionFailedError("lost"), world.now)
    world.sender.tick(batch.deadline)
    assert world.sender.ask_identity(batch.deadline) == FIRST
    world.sender.unidentified(FencedProducerError("raised already"), batch.deadline)
    assert world.sender.ask_identity(batch.deadline) == ANONYMOUS
    world.sender.identified(Identity(8, 0), batch.deadline)
    world.now = batch.deadline
    world.add(0)
    ((sent,),) = (shipment.batches for shipment in world.ship())
    assert sent.stamp.identity == Identity(8, 0)


@pytest.mark.parametrize("when", ["asked", "sent"])
def test_a_fatal_error_resolves_everything_now_and_later(when: str) -> None:
    world = World({0: 1, 1: 1}, identified=when == "sent")
    batches = [*world.add(0, 2), *world.add(1)]
    error: Exception
    if when == "asked":
        world.sender.ask_identity(world.now)
        error = InvalidConfigError("no producers here")
        world.sender.unidentified(error, world.now)
    else:
        (shipment,) = world.ship()
        results = [refusal(ErrorCode.FENCED_PRODUCER), *stored(shipment)[1:]]
        world.sender.answered(shipment, results, world.now)
    assert world.sender.fatal is not None
    assert [resolved.batch for resolved in world.sender.take_resolved()] == batches
    (late,) = world.add(0)
    ((batch, _, reason),) = world.sender.take_resolved()
    assert (batch, reason) == (late, world.sender.fatal)
    assert world.sender.ask_identity(world.now) is None
    assert world.ship() == []


def test_an_answer_with_too_few_results_is_no_answer() -> None:
    world = World({0: 1})
    world.add(0, 2)
    (shipment,) = world.ship()
    world.sender.answered(shipment, stored(shipment)[:1], world.now)
    for resolved in world.sender.take_resolved():
        assert "1 results for 2 batches" in str(resolved.error)
        assert "may or may not be stored" in str(resolved.error)
    assert world.sender.batches_in_flight == 0


def test_a_batch_that_cannot_be_encoded_fails_alone() -> None:
    world = World({0: 1})
    first, second, third = world.add(0, 3)
    (shipment,) = world.ship()
    world.sender.refused(shipment, second, BatchTooLargeError("too many headers"), world.now)
    assert shipment.batches == [first, third]
    assert len(shipment.entries) == len(shipment.lanes) == 2
    (resolved,) = world.sender.take_resolved()
    assert resolved.batch is second
    world.sender.answered(
        shipment, [ProduceResult(OK, 0, 0), refusal(ErrorCode.OUT_OF_ORDER_SEQUENCE)], world.now
    )
    (shipment,) = world.retry()
    assert shipment.batches == [third]
    assert third.stamp.sequence == 1


def test_a_partition_without_a_leader_waits_for_one() -> None:
    world = World({0: NO_LEADER})
    world.add(0)
    assert world.ship() == []
    world.leaders[0] = 2
    world.sender.update_leaders(world.now)
    assert [shipment.node_id for shipment in world.ship()] == [2]


def test_who_waits_is_told_what_for() -> None:
    world = World({0: 1, 1: NO_LEADER}, identified=False)
    world.add(0)
    assert world.sender.ask_identity(world.now) == ANONYMOUS
    world.sender.unidentified(ConnectionFailedError("no coordinator"), world.now)
    assert str(world.sender.obstacle()) == "no coordinator"
    world.sender.identified(FIRST, world.now)
    (shipment,) = world.ship()
    assert world.sender.obstacle() is None, "nothing is wrong yet"
    world.sender.answered(shipment, [refusal(ErrorCode.STORAGE_FULL)], world.now)
    full = world.sender.obstacle()
    assert isinstance(full, StorageFullError)
    assert str(full).startswith("t-0 at node 1: ")
    (shipment,) = world.retry()
    world.sender.answered(shipment, stored(shipment), world.now)
    assert world.sender.obstacle() is None
    world.add(1)
    assert "t-1 has no live leader" in str(world.sender.obstacle())


def test_lanes_of_deleted_topics_end() -> None:
    world = World({0: 1})
    world.add(0)
    (shipment,) = world.ship()
    del world.leaders[0]
    world.sender.update_leaders(world.now)
    world.sender.answered(shipment, stored(shipment), world.now)
    world.add(0)
    stored_one, late_one = world.sender.take_resolved()
    assert stored_one.error is None
    assert isinstance(late_one.error, UnknownTopicError)
    world.sender.update_leaders(world.now)
    assert world.sender.due_at in (inf, sealed(0, 1, world.now).deadline)


def test_without_acknowledgement_what_was_handed_over_is_delivered() -> None:
    world = World({0: 1}, idempotent=False)
    world.add(0, 2)
    (shipment,) = world.ship()
    world.sender.handed_over(shipment, world.now)
    assert [(resolved.base_offset, resolved.error) for resolved in world.sender.take_resolved()] == [
        (-1, None),
        (-1, None),
    ]
