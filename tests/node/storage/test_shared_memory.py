"""Batches in shared memory: what their client changes once the node has looked at them is not stored."""

import struct
from threading import Event, Thread
from typing import Any

import pytest

from tailrace.node.storage import Append, Appended, PartitionLog, Storage, writing
from tailrace.protocol.batch import BatchHeader, header_of, parse_header
from tailrace.protocol.crc import crc32c_from
from tailrace.protocol.errors import CorruptBatchError

from .support import NOW, append, batch, one_log

HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_END = 21
STAMPED = ("base_offset", "leader_epoch")
"""The node writes these two itself."""
ROUNDS = 100


def shared(log: PartitionLog, memory: bytearray) -> Append:
    """As the node makes it of a slot: it has read the header, and the client can still write."""
    return Append(log, memoryview(memory), parse_header(memory), NOW, True)


def rewrite(memory: bytearray, header: BatchHeader) -> None:
    """What a client that lies would do: the CRC fits again."""
    HEADER.pack_into(memory, 0, *header)
    sealed = header._replace(crc=crc32c_from(memory, CRC_END))
    HEADER.pack_into(memory, 0, *sealed)


@pytest.mark.parametrize("field", [name for name in BatchHeader._fields if name not in (*STAMPED, "crc")])
def test_a_header_that_changes_after_the_check(storage: Storage, field: str) -> None:
    log = one_log(storage)
    good, memory = batch(2), bytearray(batch(3, producer=7, sequence=0))
    work = [append(log, good), shared(log, memory), append(log, good)]
    header = header_of(memory)
    rewrite(memory, header._replace(**{field: getattr(header, field) + 1}))
    first, changed, last = storage.commit(work)
    assert isinstance(changed, CorruptBatchError)
    assert first == Appended(0, 1, duplicate=False)
    assert last == Appended(2, 3, duplicate=False), "it alone is refused"
    (again,) = storage.commit([shared(log, bytearray(batch(3, producer=7, sequence=0)))])
    assert again == Appended(4, 6, duplicate=False), "nothing of it is remembered"


def test_a_body_that_changes_after_the_check(storage: Storage) -> None:
    log, memory = one_log(storage), bytearray(batch(3))
    work = [shared(log, memory)]
    memory[-9] ^= 1
    (changed,) = storage.commit(work)
    assert isinstance(changed, CorruptBatchError)
    assert log.log_end_offset == 0


def test_a_body_that_changes_after_it_was_stored(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read was stored: nothing is kept of memory that the client can write to."""
    log, original = one_log(storage), batch(3)
    memory, check = bytearray(original), writing.check_stored

    def check_and_change(*arguments: Any) -> None:
        check(*arguments)
        memory[-9] ^= 1

    monkeypatch.setattr(writing, "check_stored", check_and_change)
    assert storage.commit([shared(log, memory)]) == [Appended(0, 2, duplicate=False)]
    (found,) = storage.read(log, 0, len(original), 3, bytes)
    assert found[CRC_END:] == original[CRC_END:] != memory[CRC_END:]


def test_a_client_that_writes_all_the_time(storage: Storage) -> None:
    """Also between the copy and the check, and over the node's own stamps: all that is stored is whole."""
    log, original = one_log(storage), batch(100, size=1_000)
    memory, over = bytearray(original), Event()

    def write() -> None:
        while not over.is_set():
            for at in (3, 7, 15, 30, 58, len(memory) // 2, len(memory) - 9):
                memory[at] ^= 1
                memory[at] ^= 1

    writer = Thread(target=write)
    writer.start()
    stored = 0
    try:
        for _ in range(ROUNDS):
            memory[:] = original
            try:
                work = shared(log, memory)
            except CorruptBatchError:  # changed even before the first look
                continue
            (result,) = storage.commit([work])
            assert isinstance(result, Appended | CorruptBatchError)
            stored += isinstance(result, Appended)
    finally:
        over.set()
        writer.join()
    assert log.log_end_offset == 100 * stored
    assert storage.verify().problems == []
