"""From the buffers to the application: turns, positions, what is settled when, and what raises."""

import json
import threading
from collections.abc import Callable
from itertools import count, islice
from random import Random
from threading import Lock
from typing import Any

import pyarrow
import pytest

from tailrace.consumer.assigned import AssignedPartition
from tailrace.consumer.decoding import Decoding
from tailrace.consumer.fetch_plans import FetchPlan
from tailrace.consumer.fetcher import Fetcher
from tailrace.consumer.hand_over import HandOver
from tailrace.consumer.on_error import RAISE, SKIP, OnError
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import ConcurrentUseError, CorruptBatchError, SerializationError
from tailrace.protocol.messages import OK, FetchResult
from tailrace.protocol.read_columns import Columns
from tailrace.protocol.record import TopicPartition

from .model import TOPIC, TOPIC_ID, ModelCluster, batch_of

NAMES = [TopicPartition(TOPIC, index) for index in range(3)]


class Desk:
    """A hand-over whose buffers the test fills itself."""

    def __init__(
        self,
        partitions: int = 1,
        decoding: Decoding | None = None,
        start: int = 0,
        on_error: OnError = RAISE,
        partition_bytes: int = 10_000,
    ) -> None:
        self.fetcher = Fetcher(partition_bytes=partition_bytes, reset="earliest", random=Random(0))
        self.wakes = 0
        self.hand_over = HandOver(self.fetcher, Lock(), decoding or Decoding(), self.wake, on_error)
        self.partitions = [
            AssignedPartition(NAMES[index], TOPIC_ID, start, "earliest", Random(0))
            for index in range(partitions)
        ]
        for partition in self.partitions:
            self.fetcher.assign(partition, ModelCluster(partitions).topic())

    def wake(self) -> None:
        self.wakes += 1

    def fill(self, index: int, *batches: bytes) -> None:
        plan = self.fetcher.plan(0.0)[0]
        assert isinstance(plan, FetchPlan)
        result = FetchResult(TOPIC_ID, index, OK, 1_000, 0, len(batches))
        self.fetcher.replied(plan, [result], batches, 0.0)

    def poll(self, records_max: int = 500) -> dict[str, list[int]]:
        self.hand_over.settle()
        taken = self.hand_over.records(records_max) or {}
        self.hand_over.trail = []
        return {str(name.partition): [record.offset for record in records] for name, records in taken.items()}

    @property
    def places(self) -> tuple[int, int]:
        """Position and settled offset of partition 0."""
        return self.partitions[0].position, self.partitions[0].settled


def numbered(start: int, count: int) -> bytes:
    return batch_of([b"%d" % offset for offset in range(start, start + count)], start)


def test_a_poll_goes_over_batches_and_partitions_up_to_its_bound() -> None:
    desk = Desk(2)
    desk.fill(0, numbered(0, 3), numbered(3, 3))
    desk.fill(1, numbered(0, 3))
    assert desk.poll(7) == {"0": [0, 1, 2, 3, 4, 5], "1": [0]}
    assert desk.poll(7) == {"1": [1, 2]}
    assert desk.poll(7) == {}
    assert desk.hand_over.records_handed == 9


def test_what_comes_in_during_a_poll_is_for_the_next_one() -> None:
    """A node may be as fast as the poll: then one call would take all of the log into memory."""

    def fetched_at_once() -> None:
        end = desk.partitions[0].fetch_offset
        desk.fill(0, numbered(end, 3), numbered(end + 3, 3))

    desk = Desk(partition_bytes=1)
    desk.fill(0, numbered(0, 3), numbered(3, 3))
    desk.hand_over = HandOver(desk.fetcher, Lock(), Decoding(), fetched_at_once)
    assert desk.poll(100) == {"0": [0, 1, 2, 3, 4, 5]}
    assert desk.poll(100) == {"0": [6, 7, 8, 9, 10, 11]}


def test_partitions_take_turns() -> None:
    desk = Desk(2)
    desk.fill(0, numbered(0, 9))
    desk.fill(1, numbered(0, 9))
    assert [desk.poll(3) for _ in range(4)] == [
        {"0": [0, 1, 2]}, {"1": [0, 1, 2]}, {"0": [3, 4, 5]}, {"1": [3, 4, 5]},
    ]  # fmt: skip


def test_a_poll_is_settled_by_the_next_one() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 5))
    desk.poll(2)
    assert desk.places == (2, 0)
    desk.poll(2)
    assert desk.places == (4, 2)
    desk.hand_over.settle()
    assert desk.places == (4, 4)


def test_a_loop_settles_all_but_the_record_in_hand() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 5))
    loop = desk.hand_over.chunk(5)
    assert loop is not None
    assert [record.offset for record in islice(loop, 3)] == [0, 1, 2]
    desk.hand_over.note_progress()
    assert desk.places == (3, 0)
    desk.hand_over.settle_before_last()
    assert desk.places == (3, 2)
    desk.hand_over.settle_handed()
    assert desk.places == (3, 3)
    desk.hand_over.settle_before_last()
    assert desk.places == (3, 3), "a commit of the record in hand is not taken back"


def test_a_loop_that_was_interfered_with_ends_and_loses_nothing() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 5))
    loop = desk.hand_over.chunk(5)
    assert loop is not None
    assert next(loop).offset == 0
    assert desk.poll(2) == {"0": [1, 2]}
    assert list(loop) == []
    assert desk.poll() == {"0": [3, 4]}


def test_what_an_interrupted_ask_has_taken_is_there_for_the_next() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 3), numbered(3, 3))
    buffered = desk.fetcher.buffered_bytes
    assert desk.poll(2) == {"0": [0, 1]}
    desk.hand_over.settle()
    desk.hand_over.records(4)
    assert desk.fetcher.buffered_bytes == 0
    desk.hand_over.interrupted = True
    desk.hand_over.note_progress()
    assert desk.places == (2, 2)
    assert (desk.fetcher.buffered_bytes, desk.hand_over.records_handed) == (buffered, 2)
    assert desk.poll() == {"0": [2, 3, 4, 5]}
    assert desk.hand_over.records_handed == 6


@pytest.mark.parametrize("partitions", [1, 2])
def test_what_a_signal_handler_raises_is_not_put_off(
    partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler's call in the middle of a poll raises ConcurrentUseError: no partition's own."""
    desk = Desk(partitions)
    desk.fill(0, numbered(0, 2), numbered(2, 2))
    if partitions == 2:
        desk.fill(1, numbered(0, 2))
    decoded = count()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(decoded) == partitions:  # behind some that were taken
            raise ConcurrentUseError("in the middle of another call")
        return decode(*arguments, **options)

    monkeypatch.setattr("tailrace.consumer.open_batch.decode", interrupted)
    with pytest.raises(ConcurrentUseError):
        desk.poll()


def test_the_engine_is_woken_when_a_buffer_that_was_full_has_room() -> None:
    desk = Desk(partition_bytes=1)
    desk.fill(0, numbered(0, 3))
    desk.poll(2)
    assert desk.wakes == 0
    desk.poll(2)
    assert desk.wakes == 1


def test_the_engine_is_woken_when_another_thread_has_changed_something() -> None:
    """What it resumes may be fetched at once. (A change of the main thread's is made where fetches are.)"""
    desk = Desk()
    changer = threading.Thread(target=desk.hand_over.change, args=[lambda: desk.fill(0, numbered(0, 2))])
    changer.start()
    changer.join()
    assert desk.wakes == 1
    assert desk.poll() == {"0": [0, 1]}


def test_the_engine_is_not_woken_for_a_buffer_that_had_room_before() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 3))
    assert desk.fetcher.plan(0.0), "more is asked for before anything is handed over"
    desk.poll()
    assert desk.wakes == 0


def test_a_fetch_into_the_middle_of_a_batch_is_cut_to_the_position() -> None:
    desk = Desk(start=4)
    desk.fill(0, numbered(0, 8))
    batch = desk.hand_over.columns()
    assert batch is not None
    assert len(batch) == 4
    assert list(batch.offsets) == [4, 5, 6, 7]
    assert batch.values == [b"4", b"5", b"6", b"7"]
    assert batch.keys == [None] * 4
    assert batch.timestamps == [1_000] * 4
    assert batch.headers == [()] * 4
    assert [record.value for record in batch.records()] == batch.values
    assert {(record.topic, record.partition) for record in batch.records()} == {(TOPIC, 0)}
    assert repr(batch) == "<ColumnBatch orders-0 offsets 4 to 7>"
    table = batch.to_arrow()
    assert isinstance(table, pyarrow.RecordBatch)
    assert table.column("offset").to_pylist() == [4, 5, 6, 7]
    assert table.column("value").to_pylist() == batch.values


def test_what_a_poll_left_of_a_batch_is_the_next_batch() -> None:
    desk = Desk()
    desk.fill(0, numbered(0, 5))
    desk.poll(2)
    desk.hand_over.settle()
    batch = desk.hand_over.columns()
    assert batch is not None
    assert list(batch.offsets) == [2, 3, 4]
    assert desk.places == (5, 2)


@pytest.mark.parametrize("take", ["records", "chunk", "columns"])
def test_a_corrupt_batch_stops_its_partition_and_no_other(take: str) -> None:
    desk = Desk(2)
    broken = bytearray(numbered(3, 3))
    broken[-1] ^= 1
    desk.fill(0, numbered(0, 3), bytes(broken), numbered(6, 3))
    desk.fill(1, numbered(0, 3), numbered(3, 3))
    asks: dict[str, Callable[[], Any]] = {
        "records": lambda: desk.hand_over.records(3),
        "chunk": lambda: list(desk.hand_over.chunk(500) or ()),
        "columns": lambda: desk.hand_over.columns(),
    }
    ask = asks[take]
    got, errors, places = 0, [], []
    for _ in range(8):
        desk.hand_over.settle()
        try:
            got += bool(ask())
        except CorruptBatchError as error:
            errors.append(str(error))
            places.append((error.partition, error.offset, error.next_offset))
    assert got == 3
    assert len(errors) >= 3
    assert len(set(errors)) == 1
    assert set(places) == {(desk.partitions[0].name, 3, 6)}
    assert "orders-0: the batch at offset 3 is corrupt: CRC-32C" in errors[0]
    assert "seek to 6" in errors[0]
    assert desk.places == (3, 3)
    desk.fetcher.seek(desk.partitions[0], 6)
    desk.fill(0, numbered(6, 3))
    assert desk.poll() == {"0": [6, 7, 8]}


def test_deserializers_get_bytes_and_nulls_stay_null() -> None:
    desk = Desk(decoding=Decoding(key=bytes.decode, value=json.loads))
    desk.fill(0, batch_of([b"1", None, b'{"a": 2}'], 0, [b"x", b"y", b"z"]), batch_of([b"[]"], 3))
    (records,) = (desk.hand_over.records(500) or {}).values()
    assert [(record.key, record.value) for record in records] == [
        ("x", 1), ("y", None), ("z", {"a": 2}), (None, []),
    ]  # fmt: skip


def test_a_record_that_does_not_deserialize_is_raised_when_it_is_its_turn() -> None:
    desk = Desk(decoding=Decoding(value=int))
    desk.fill(0, batch_of([b"0", b"1", b"two", b"3"], 0))
    assert desk.poll() == {"0": [0, 1]}
    for _ in range(2):
        with pytest.raises(
            SerializationError, match=r"orders-0: the value of the record at offset 2 .*ValueError"
        ) as caught:
            desk.poll()
        assert isinstance(caught.value.__cause__, ValueError)
        assert "seek to 3" in str(caught.value)
    assert desk.places == (2, 2)
    desk.fetcher.seek(desk.partitions[0], 3)
    desk.fill(0, batch_of([b"0", b"1", b"two", b"3"], 0))
    assert desk.poll() == {"0": [3]}


def test_a_key_that_does_not_deserialize_is_named_as_such() -> None:
    desk = Desk(decoding=Decoding(key=int, value=int))
    desk.fill(0, batch_of([b"0", b"x"], 0, [b"0", b"y"]))
    assert desk.poll() == {"0": [0]}
    with pytest.raises(SerializationError, match="the key of the record at offset 1"):
        desk.poll()


@pytest.mark.parametrize("start", [0, 2])
def test_columns_are_handed_over_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Who wants but one of them, or an array, does not pay for the others."""
    decoded: list[str] = []
    for name in ("values", "keys", "timestamps", "headers", "fields"):
        made = getattr(Columns, name)
        monkeypatch.setattr(
            Columns, name, lambda body, name=name, made=made: decoded.append(name) or made(body)
        )
    read: list[bytes] = []
    desk = Desk(start=start, decoding=Decoding(value=lambda value: read.append(value) or int(value)))
    desk.fill(0, numbered(0, 4))
    batch = desk.hand_over.columns()
    assert batch is not None
    assert (len(batch), list(batch.offsets)) == (4 - start, list(range(start, 4)))
    assert (decoded, read) == ([], [])
    assert batch.values == batch.values == list(range(start, 4))
    assert (decoded, read) == (["values"], [b"%d" % offset for offset in range(start, 4)])


def test_columns_raise_what_does_not_deserialize_when_it_is_used() -> None:
    desk = Desk(decoding=Decoding(value=int))
    desk.fill(0, batch_of([b"0", b"x"], 0))
    batch = desk.hand_over.columns()
    assert batch is not None
    assert list(batch.offsets) == [0, 1]
    with pytest.raises(SerializationError, match="the value of the record at offset 1"):
        _ = batch.values


def test_ctrl_c_in_a_deserializer_hands_nothing_over() -> None:
    def interrupted(value: bytes) -> bytes:
        if value == b"1":
            raise KeyboardInterrupt
        return value

    desk = Desk(decoding=Decoding(value=interrupted))
    desk.fill(0, numbered(0, 3))
    with pytest.raises(KeyboardInterrupt):
        desk.hand_over.records(500)
    desk.hand_over.recover()
    assert desk.places == (0, 0)


@pytest.mark.parametrize("on_error", [RAISE, SKIP, OnError(tolerant=True, topic="dead")])
def test_a_damaged_batch_is_raised_whatever_on_error_says(on_error: OnError) -> None:
    desk = Desk(on_error=on_error)
    batch = numbered(0, 3)
    desk.fill(0, batch[:-1] + bytes([batch[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(CorruptBatchError, match="CRC-32C"):
            desk.poll()
    assert desk.places == (0, 0)
    assert not desk.hand_over.parked


def test_a_parked_batch_holds_up_only_its_partition_until_it_is_released_or_left() -> None:
    desk = Desk(2, Decoding(value=json.loads), on_error=OnError(tolerant=True, topic="dead"))
    desk.fill(0, batch_of([b"0", b"{", b"2"], 0), numbered(3, 2))
    desk.fill(1, numbered(0, 3))
    assert desk.poll() == {"1": [0, 1, 2]}
    assert desk.poll() == {}
    (parked,) = desk.hand_over.parked.values()
    assert [(one.record.offset, one.record.value) for one in parked.rejected] == [(1, b"{")]
    assert desk.hand_over.is_current(parked)
    desk.hand_over.release(parked)
    assert desk.poll() == {"0": [0, 2, 3, 4]}
    assert desk.places[0] == 5

    desk.fill(0, batch_of([b"{"], 5))
    assert desk.poll() == {}
    (parked,) = desk.hand_over.parked.values()
    desk.fetcher.seek(desk.partitions[0], 3)
    assert not desk.hand_over.is_current(parked)
    desk.hand_over.release(parked)
    assert desk.places[0] == 3
    assert not desk.hand_over.parked
