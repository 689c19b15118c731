"""What a leader says of a batch that it has appended, when it can't say that it counts."""

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from tailrace.node.handlers import produce
from tailrace.node.storage.log_plan import Appended
from tailrace.node.work import PendingProduce
from tailrace.protocol.admin_messages import ElectLeaders, MovePartitions, PartitionMove
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import (
    BusyError,
    ErrorCode,
    LeaderNotAvailableError,
    NotEnoughReplicasError,
    NotLeaderError,
    TailraceError,
)
from tailrace.protocol.messages import ACKS_ALL, DescribeLogs, Failed, Produce

from ..patience import wait_until
from ..suspended import suspended
from .conftest import House, Peer


def end_of_log(peer: Peer) -> int:
    reply, _ = peer.ask(DescribeLogs)
    return int(reply.logs[0].log_end_offset)


def test_a_leader_that_is_replaced_while_a_batch_waits_for_its_follower(bare_house: House) -> None:
    """Its successor may have the batch or not, so that it was not refused."""
    bare_house.start_coordinator(session_timeout_ms=60_000)
    bare_house.start(1)
    follower = bare_house.spawn(2)
    topic = bare_house.create(replicas=2)
    assert topic.info.partitions[0].replicas == (1, 2)
    leader = bare_house.peer()
    with suspended(follower.pid):
        batch = encode([b"a"], timestamps=time.time_ns() // 1_000_000)
        request_id = leader.send(Produce, [batch], acks=ACKS_ALL, entries=[topic.entry()])
        wait_until(lambda: end_of_log(bare_house.peer()) == 1, "it is appended")
        coordinator = bare_house.peer(bare_house.coordinator_ipc)
        coordinator.ask(MovePartitions, moves=[PartitionMove(topic.id, 0, (2, 1))])
        elected, _ = coordinator.ask(ElectLeaders, topics=None)
        assert elected.moved == 1
        reply, _ = leader.receive()
    assert isinstance(reply, Failed)
    assert reply.request_id == request_id
    assert reply.error.code == ErrorCode.NOT_COMMITTED


@pytest.mark.parametrize(
    "change", [NotLeaderError, NotEnoughReplicasError, LeaderNotAvailableError, BusyError]
)
def test_what_has_changed_while_the_writer_had_the_batch(change: type[TailraceError]) -> None:
    broker = Mock()
    broker.replication.refuse_unwritable.side_effect = change("now")
    log: Any = SimpleNamespace(sole_replica=False, log_start_offset=0, high_watermark=0)
    append: Any = SimpleNamespace(log=log)
    waiting = PendingProduce(b"peer", 1, ACKS_ALL, [None], places=[0], appends=[append], leader_epochs=[4])
    produce.committed(broker, [(waiting, [Appended(0, 0, duplicate=False)])], 0.0)
    ((_, reply), _) = broker.reply.call_args
    assert [result.error.code for result in reply.results] == [ErrorCode.NOT_COMMITTED]
