"""Header frames: every message survives the trip, and whatever is none is refused by a typed error."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from tailrace.protocol import messages, wire
from tailrace.protocol.errors import (
    ErrorCode,
    MalformedRequestError,
    NotLeaderError,
    RequestTooLargeError,
    TailraceError,
    UnsupportedVersionError,
)
from tailrace.protocol.group_messages import CommitOffsets
from tailrace.protocol.limits import HEADER_BYTES_MAX, PRODUCE_BATCHES_MAX

NODE_REQUESTS = get_args(messages.NodeRequest)
COORDINATOR_REQUESTS = get_args(messages.CoordinatorRequest)
REPLIES = get_args(messages.Reply)
PUBLISHED = get_args(messages.Published)
DECODERS: dict[Any, tuple[type, ...]] = {
    wire.decode_node_request: NODE_REQUESTS,
    wire.decode_coordinator_request: COORDINATOR_REQUESTS,
    wire.decode_reply: REPLIES,
    wire.decode_published: PUBLISHED,
}
TOPIC = bytes(16)


def integers(kind: inspect.IntType) -> st.SearchStrategy[int]:
    low = -(2**63) if kind.ge is None else kind.ge
    high = 2**63 - 1 if kind.le is None else kind.le
    return st.integers(low if kind.gt is None else kind.gt + 1, high if kind.lt is None else kind.lt - 1)


def structs(kind: inspect.StructType) -> st.SearchStrategy[Any]:
    fields = {field.name: strategy_of(field.type) for field in kind.fields}
    if issubclass(kind.cls, messages.Message):
        fields["version"] = st.just(messages.PROTOCOL_VERSION)
    return st.builds(kind.cls, **fields)


STRATEGIES: dict[type[inspect.Type], Callable[[Any], st.SearchStrategy[Any]]] = {
    inspect.NoneType: lambda kind: st.none(),
    inspect.BoolType: lambda kind: st.booleans(),
    inspect.IntType: integers,
    inspect.StrType: lambda kind: st.text(max_size=6),
    inspect.BytesType: lambda kind: st.binary(min_size=kind.min_length or 0, max_size=kind.max_length or 6),
    inspect.ListType: lambda kind: st.lists(
        strategy_of(kind.item_type), min_size=kind.min_length or 0, max_size=2
    ),
    inspect.VarTupleType: lambda kind: st.lists(strategy_of(kind.item_type), max_size=2).map(tuple),
    inspect.DictType: lambda kind: st.dictionaries(
        strategy_of(kind.key_type), strategy_of(kind.value_type), max_size=2
    ),
    inspect.UnionType: lambda kind: st.one_of(*map(strategy_of, kind.types)),
    inspect.StructType: structs,
}


def strategy_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that the type and its bounds allow, texts and lists kept short."""
    return STRATEGIES[type(kind)](kind)


@cache
def any_message(kinds: tuple[type, ...]) -> st.SearchStrategy[Any]:
    return st.one_of(*(strategy_of(inspect.type_info(kind)) for kind in kinds))


@pytest.mark.parametrize(
    "decoder", DECODERS, ids=["node request", "coordinator request", "reply", "published"]
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_message_survives_the_trip(decoder: Any, data: st.DataObject) -> None:
    message = data.draw(any_message(DECODERS[decoder]))
    header = wire.encode(message)
    assert decoder(header) == message
    assert decoder(memoryview(header)) == message
    if not isinstance(message, PUBLISHED):
        assert wire.request_id_of(header) == message.request_id


def every_kind() -> set[type]:
    return {kind for kinds in DECODERS.values() for kind in kinds}


def test_tags_are_unique_and_fixed() -> None:
    tags = {kind.__struct_config__.tag: kind.__name__ for kind in every_kind()}  # type: ignore[attr-defined]
    assert len(tags) == len(every_kind())
    assert tags == {
        1: "Produce", 2: "Fetch", 3: "ListOffsets", 4: "DescribeLogs", 5: "Ping", 6: "OpenArena",
        9: "OpenPipes",
        20: "GetSnapshot", 21: "RegisterNode", 22: "Heartbeat", 23: "LeaveCluster",
        24: "CreateTopic", 25: "DeleteTopic", 26: "InitProducer", 27: "AlterTopic", 28: "AlterIsr",
        7: "ReplicaFetch", 8: "ReplicaAck", 107: "ReplicaFetched", 29: "LeaveIsr", 128: "IsrAltered",
        40: "ElectLeaders", 41: "MovePartitions", 42: "DrainNode", 43: "RemoveNode",
        140: "LeadersElected", 141: "PartitionsMoving", 142: "NodeDraining", 143: "NodeForgotten",
        30: "JoinGroup", 31: "GroupHeartbeat", 32: "LeaveGroup", 33: "CommitOffsets", 34: "FetchOffsets",
        35: "ListGroups", 36: "DescribeGroup", 37: "DeleteGroup",
        100: "Failed", 101: "Produced", 102: "Fetched", 103: "OffsetsListed", 104: "LogsDescribed",
        105: "Pong", 106: "ArenaOpened", 109: "PipesOpened",
        120: "SnapshotTaken", 121: "NodeRegistered", 122: "HeartbeatSeen", 123: "ClusterLeft",
        124: "TopicCreated", 125: "TopicDeleted", 126: "ProducerReady",
        127: "TopicAltered", 130: "GroupAssigned", 132: "GroupLeft", 133: "OffsetsCommitted",
        134: "OffsetsFetched", 135: "GroupsListed", 136: "GroupDescribed", 137: "GroupDeleted",
        200: "Update", 201: "Beat",
    }  # fmt: skip


def test_bytes_of_a_message_are_fixed() -> None:
    """[kind, request id, version, fields...] as a msgpack array."""
    produce = messages.Produce(7, entries=[messages.ProduceEntry(TOPIC, 3, 4)])
    assert wire.encode(produce) == b"\x95\x01\x07\x01\xff\x91\x93\xc4\x10" + TOPIC + b"\x03\x04"
    assert wire.encode(messages.Beat(3, 10)) == b"\x93\xcc\xc9\x03\x0a"


def test_fields_at_the_end_may_be_left_out() -> None:
    """So that a field can be added behind the others without a new version."""
    assert wire.decode_coordinator_request(
        msgspec.msgpack.encode([24, 9, 1, "topic"])
    ) == messages.CreateTopic(9, name="topic")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x01",
        b"text that is no msgpack",
        msgspec.msgpack.encode({"kind": 1}),
        msgspec.msgpack.encode([99, 1, 1]),
        msgspec.msgpack.encode(["Ping", 1, 1]),
        msgspec.msgpack.encode([5, "one", 1]),
        msgspec.msgpack.encode([5, 2**63, 1]),
        msgspec.msgpack.encode([5, 1, 1]) + b"\x00",
        msgspec.msgpack.encode([1, 1, 1, 5, [[TOPIC, 0, 0]]]),
        msgspec.msgpack.encode([1, 1, 1, -1, []]),
        msgspec.msgpack.encode([1, 1, 1, -1, [[TOPIC[1:], 0, 0]]]),
        msgspec.msgpack.encode([1, 1, 1, -1, [[TOPIC, -1, 0]]]),
        msgspec.msgpack.encode([1, 1, 1, -1, [[TOPIC, 2**31, 0]]]),
        msgspec.msgpack.encode([1, 1, 1, -1, [[TOPIC, 0]]]),
        msgspec.msgpack.encode([1, 1, 1, -1, [[TOPIC, 0, 0]] * (PRODUCE_BATCHES_MAX + 1)]),
        msgspec.msgpack.encode([2, 1, 1, -5, 1, 1, [[TOPIC, 0, 0, 0, 1]]]),
        msgspec.msgpack.encode([2, 1, 1, 0, 1, 1, [[TOPIC, 0, 0, 0, 0]]]),
        b"\x95\x01\x07\x01\xff\xdd\xff\xff\xff\xff",  # an array that claims four billion entries
        b"\x91" * 200_000,
    ],
    ids=lambda header: header[:12].hex() or "empty",
)
def test_malformed_headers(header: bytes) -> None:
    with pytest.raises(MalformedRequestError, match="not a message"):
        wire.decode_node_request(header)
    assert isinstance(wire.request_id_of(header), int)


def test_no_offset_is_negative() -> None:
    for offset in (0, -1):
        header = msgspec.msgpack.encode([33, 7, 1, "g", "", -1, [[TOPIC, 0, offset]]])
        if offset == 0:
            assert isinstance(wire.decode_coordinator_request(header), CommitOffsets)
        else:
            with pytest.raises(MalformedRequestError, match=">= 0"):
                wire.decode_coordinator_request(header)


def test_a_reply_is_no_request() -> None:
    with pytest.raises(MalformedRequestError):
        wire.decode_node_request(wire.encode(messages.Pong(1)))
    with pytest.raises(MalformedRequestError):
        wire.decode_node_request(wire.encode(messages.GetSnapshot(1)))
    with pytest.raises(MalformedRequestError):
        wire.decode_reply(wire.encode(messages.Ping(1)))


def test_oversize_headers_are_not_decoded() -> None:
    header = msgspec.msgpack.encode([5, 1, 1]) + bytes(HEADER_BYTES_MAX)
    for decoder in DECODERS:
        with pytest.raises(RequestTooLargeError, match=f"at most {HEADER_BYTES_MAX}"):
            decoder(header)
    assert wire.request_id_of(header) == -1


@pytest.mark.parametrize(
    "fields",
    [[5, 77, 2], [5, 77, 2, "a field of version 2"], [1, 77, 2, "other", "fields"], [99, 77, 2], [5, 77, 0]],
)
def test_other_versions(fields: list[Any]) -> None:
    header = msgspec.msgpack.encode(fields)
    with pytest.raises(UnsupportedVersionError, match=f"protocol version {fields[2]}, this process speaks 1"):
        wire.decode_node_request(header)
    assert wire.request_id_of(header) == 77


def test_published_messages_carry_no_version() -> None:
    """The third field of an update is the state's version, not the protocol's."""
    assert wire.decode_published(wire.encode(messages.Update(3, 57, []))) == messages.Update(3, 57, [])
    with pytest.raises(MalformedRequestError):
        wire.decode_published(msgspec.msgpack.encode([200, 3, 57, "no changes"]))


@pytest.mark.parametrize(
    ("header", "request_id"),
    [
        (msgspec.msgpack.encode([1, 42, 1, "nonsense"]), 42),
        (msgspec.msgpack.encode([1, -3]), -3),
        (msgspec.msgpack.encode([1]), -1),
        (msgspec.msgpack.encode([1, "x"]), -1),
        (msgspec.msgpack.encode([1, 2**64 - 1]), -1),
        (b"\xff", -1),
        (b"", -1),
    ],
)
def test_request_id_of_what_did_not_decode(header: bytes, request_id: int) -> None:
    assert wire.request_id_of(header) == request_id


def test_failure_carries_code_and_message() -> None:
    reply = wire.decode_reply(wire.encode(wire.failure(8, NotLeaderError("node 2 leads"))))
    assert reply == messages.Failed(8, error=messages.ErrorInfo(int(ErrorCode.NOT_LEADER), "node 2 leads"))
    long = wire.decode_reply(wire.encode(wire.failure(8, TailraceError("é" * 10_000))))
    assert isinstance(long, messages.Failed)
    assert len(long.error.message) == 4_096


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(header: bytes) -> None:
    for decoder in DECODERS:
        with suppress(MalformedRequestError, UnsupportedVersionError):
            assert isinstance(decoder(header), DECODERS[decoder])


def test_the_fuzzer_runs() -> None:
    """A short run of the long fuzzer, so that it cannot rot."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "fuzz"
    result = subprocess.run(
        [sys.executable, script, "--iterations", "3000", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for outcome in ("batch: refused", "batch: whole", "wire: refused", "wire: taken"):
        assert outcome in result.stdout
