"""What a leader has sent, once it is there."""

from types import SimpleNamespace
from typing import Any

from tailrace.node.replication.copying import CopyFetch
from tailrace.node.replication.replication import Replication
from tailrace.protocol.messages import OK
from tailrace.protocol.replica_messages import ReplicaFetched, ReplicaFetchResult


def test_a_leader_cannot_change_what_has_come() -> None:
    """It lies in memory that the leader writes to; the CRC is checked before it is stored."""
    taken: list[list[bytes]] = []
    copier = SimpleNamespace(replied=lambda _id, _results, batches, _now: taken.append(batches))
    follower: Any = SimpleNamespace(copier=copier, _now=0.0)
    memory = bytearray(b"one batch, another")
    reply = ReplicaFetched(1, results=[ReplicaFetchResult(bytes(16), 0, OK, 0, 0, batches=2)])
    frames = [memoryview(memory)[:9], memoryview(memory)[11:]]
    Replication._fetch_answered(follower, CopyFetch(1, 2, []), reply, frames)
    memory[:] = bytes(len(memory))
    assert taken == [[b"one batch", b"another"]]
