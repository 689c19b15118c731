"""How the state is laid out in rows: one a node, topic, partition, raised producer epoch and tombstone.

| sub-database | key | value (msgpack) |
|---|---|---|
| meta | name | integer; text for `cluster_id`, an array of integers for `openings` |
| nodes | node id, 4 bytes big endian | NodeInfo |
| topics | topic id | TopicRow |
| partitions | topic id + index, 4 bytes big endian | PartitionInfo |
| producers | producer id, 8 bytes big endian | epoch, if it was ever raised |
| tombstones | version, 8 bytes big endian + topic id | none |

A change touches the rows of what it names alone, so that its cost does not grow with the state.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from tailrace.protocol.cluster import (
    Change,
    ClusterState,
    NodeChanged,
    NodeInfo,
    NodeRemoved,
    PartitionChanged,
    PartitionInfo,
    Snapshot,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)

from ..private_state import (
    ControllerEpochRaised,
    PrivateChange,
    ProducerEpochRaised,
    ProducerIdIssued,
    StoreOpened,
    TombstoneDropped,
    TopicBuried,
)
from ..state import State

META: Final = "meta"
NODES: Final = "nodes"
TOPICS: Final = "topics"
PARTITIONS: Final = "partitions"
PRODUCERS: Final = "producers"
TOMBSTONES: Final = "tombstones"
TABLES: Final = (META, NODES, TOPICS, PARTITIONS, PRODUCERS, TOMBSTONES)

FORMAT: Final = 1
TOPIC_ID_BYTES: Final = 16

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_encode: Final = msgspec.msgpack.Encoder().encode
_node: Final = msgspec.msgpack.Decoder(NodeInfo)
_partition: Final = msgspec.msgpack.Decoder(PartitionInfo)
_integer: Final = msgspec.msgpack.Decoder(int)
_integers: Final = msgspec.msgpack.Decoder(tuple[int, ...])

DAMAGE: Final = (msgspec.MsgspecError, KeyError, ValueError, struct.error)
"""What reading rows that are not as they were written can raise."""

Rows = Sequence[tuple[bytes, bytes]]


class Put(NamedTuple):
    """Write one row."""

    table: str
    key: bytes
    value: bytes


class Delete(NamedTuple):
    """Delete the rows whose keys start with `prefix`."""

    table: str
    prefix: bytes


Operation = Put | Delete


class TopicRow(msgspec.Struct, frozen=True, array_like=True):
    """A topic without its partitions, which have rows of their own."""

    name: str
    config: TopicConfig


_topic: Final = msgspec.msgpack.Decoder(TopicRow)


def first_rows(cluster_id: str) -> Iterator[Put]:
    """What a new store starts with."""
    yield Put(META, b"cluster_id", _encode(cluster_id))
    yield Put(META, b"controller_epoch", _encode(0))
    yield Put(META, b"version", _encode(0))
    yield Put(META, b"openings", _encode(()))
    yield Put(META, b"next_producer_id", _encode(0))
    yield Put(META, b"format", _encode(FORMAT))


def format_of(value: bytes) -> int:
    """The format version of a store. Raises msgspec.DecodeError."""
    return _integer.decode(value)


def version_row(version: int) -> Put:
    """The version that the rows are at."""
    return Put(META, b"version", _encode(version))


def published_operations(change: Change) -> Iterator[Operation]:
    """What a change of the cluster state does to the rows."""
    match change:
        case NodeChanged(node):
            yield Put(NODES, _U32.pack(node.node_id), _encode(node))
        case NodeRemoved(node_id):
            yield Delete(NODES, _U32.pack(node_id))
        case TopicChanged(topic):
            yield Delete(PARTITIONS, topic.topic_id)
            yield Put(TOPICS, topic.topic_id, _encode(TopicRow(topic.name, topic.config)))
            for index, partition in enumerate(topic.partitions):
                yield Put(PARTITIONS, topic.topic_id + _U32.pack(index), _encode(partition))
        case TopicRemoved(topic_id):
            yield Delete(TOPICS, topic_id)
            yield Delete(PARTITIONS, topic_id)
        case PartitionChanged(topic_id, index, partition):
            yield Put(PARTITIONS, topic_id + _U32.pack(index), _encode(partition))


def private_operation(change: PrivateChange) -> Operation:
    """What a private change does to the rows."""
    match change:
        case ControllerEpochRaised(epoch):
            return Put(META, b"controller_epoch", _encode(epoch))
        case ProducerIdIssued(producer_id):
            return Put(META, b"next_producer_id", _encode(producer_id + 1))
        case ProducerEpochRaised(producer_id, epoch):
            return Put(PRODUCERS, _U64.pack(producer_id), _encode(epoch))
        case TopicBuried(topic_id, version):
            return Put(TOMBSTONES, _U64.pack(version) + topic_id, b"")
        case TombstoneDropped(topic_id, version):
            return Delete(TOMBSTONES, _U64.pack(version) + topic_id)
        case StoreOpened(openings):
            return Put(META, b"openings", _encode(openings))


def state_of(tables: dict[str, Rows]) -> State:
    """The state that the rows hold. Raises one of DAMAGE."""
    meta = dict(tables[META])
    partitions = {
        topic_id: _partitions_of(list(rows))
        for topic_id, rows in groupby(tables[PARTITIONS], lambda row: row[0][:TOPIC_ID_BYTES])
    }
    topics = []
    for topic_id, value in tables[TOPICS]:
        row = _topic.decode(value)
        topics.append(TopicInfo(topic_id, row.name, row.config, partitions[topic_id]))
    snapshot = Snapshot(
        _integer.decode(meta[b"controller_epoch"]),
        _integer.decode(meta[b"version"]),
        tuple(_node.decode(value) for _, value in tables[NODES]),
        tuple(topics),
    )
    state = State(msgspec.msgpack.decode(meta[b"cluster_id"], type=str), ClusterState(snapshot))
    state.openings = _integers.decode(meta.get(b"openings", _encode(())))  # older versions put none
    state.next_producer_id = _integer.decode(meta[b"next_producer_id"])
    state.producer_epochs = {_U64.unpack(key)[0]: _integer.decode(value) for key, value in tables[PRODUCERS]}
    width = _U64.size
    state.tombstones = {key[width:]: _U64.unpack(key[:width])[0] for key, _ in tables[TOMBSTONES]}
    return state


def _partitions_of(rows: Rows) -> tuple[PartitionInfo, ...]:
    """A topic's partitions of their rows, which are in order; none may be missing."""
    last, _ = rows[-1]
    if _U32.unpack(last[TOPIC_ID_BYTES:])[0] != len(rows) - 1:
        raise ValueError(f"a partition of topic {last[:TOPIC_ID_BYTES].hex()} is missing")
    return tuple(_partition.decode(value) for _, value in rows)
