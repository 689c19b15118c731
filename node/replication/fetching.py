"""What a follower sends to leaders: its fetches, and acknowledgements between them. Network thread."""

from collections.abc import Mapping
from functools import partial

from tailrace.client.connections import Connections
from tailrace.client.pending import ReplyHandler
from tailrace.protocol.limits import REPLICA_FETCH_BYTES_MAX, REPLICA_FETCH_WAIT_MS
from tailrace.protocol.replica_messages import ReplicaAck, ReplicaAckEntry, ReplicaFetch
from tailrace.protocol.wire import encode

from .copying import CopyFetch


def send_fetch(
    connections: Connections,
    fetch: CopyFetch,
    node: tuple[int, int],
    *,
    on_reply: ReplyHandler,
    timeout_s: float,
    now: float,
) -> None:
    """`node`: the follower's id and epoch."""
    request = ReplicaFetch(
        connections.next_id(),
        node_id=node[0],
        node_epoch=node[1],
        max_wait_ms=REPLICA_FETCH_WAIT_MS,
        max_bytes=REPLICA_FETCH_BYTES_MAX,
        entries=fetch.entries,
    )
    send = partial(connections.request, fetch.leader, request.request_id, encode(request), ())
    send(on_reply=on_reply, timeout_s=timeout_s, now=now, reply_bytes=REPLICA_FETCH_BYTES_MAX)


def send_acks(
    connections: Connections, acks: Mapping[int, list[ReplicaAckEntry]], node: tuple[int, int], now: float
) -> None:
    """By leader. Without a connection the fetch that is out fails too, and the next one says the same."""
    for leader, entries in acks.items():
        ack = ReplicaAck(connections.next_id(), node_id=node[0], node_epoch=node[1], entries=entries)
        connections.tell(leader, encode(ack), (), now)
