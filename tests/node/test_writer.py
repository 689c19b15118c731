"""The writer thread on real storage: order, groups, leader epochs, what it cannot open."""

import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.chores import Chores
from tailrace.node.leaders import Led
from tailrace.node.mailbox import Mailbox
from tailrace.node.replication.copying import CopyStep
from tailrace.node.storage import ballast, retention
from tailrace.node.storage.environment import Storage
from tailrace.node.storage.log_plan import Append, Appended
from tailrace.node.work import (
    Committed,
    Drain,
    Drained,
    Letter,
    PendingCopy,
    PendingProduce,
    Prepare,
    Prepared,
    Role,
    WriterFailed,
)
from tailrace.node.writer import Writer
from tailrace.protocol.batch import parse_header
from tailrace.protocol.cluster import TopicConfig
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import (
    BusyError,
    FencedLeaderEpochError,
    NotLeaderError,
    StorageFaultError,
    StorageFullError,
    UnknownPartitionError,
)
from tailrace.transport.poller import Poller
from tailrace.transport.wakeup import Wakeup

from ..patience import PATIENCE_S, wait_until

TOPIC, OTHER = b"t" * 16, b"o" * 16
NOW = time.time_ns() // 1_000_000


class Desk:
    """A writer, and the network thread's side of its mailbox."""

    def __init__(self, folder: Path, *, inline: bool = False) -> None:
        self.folder = folder
        self.storage = Storage.open(folder, quota_bytes=64 << 20, reserve_bytes=1 << 20)
        self._wakeup = Wakeup()
        self._poller = Poller()
        self._poller.add(self._wakeup)
        self.mailbox: Mailbox[Letter] = Mailbox(self._wakeup)
        self.writer = Writer(
            self.storage, self.mailbox, Chores(retention_check_s=0.02), wall_ms=lambda: NOW, inline=inline
        )
        self._letters: list[Letter] = []

    def next(self) -> Letter:
        deadline = time.monotonic() + PATIENCE_S
        while not self._letters:
            self.work()
            self.mailbox.fall_asleep()
            if not self.mailbox.waits:
                assert self._poller.poll(deadline - time.monotonic()), "no letter in time"
            self.mailbox.wake_up()
            self._wakeup.clear()
            self._letters = self.mailbox.take()
        return self._letters.pop(0)

    def work(self) -> None:
        """What the network thread does between two sleeps."""
        if self.writer.inline:
            self.writer.catch_up()

    def prepare(self, lead: dict[Any, int], version: int = 1, **options: Any) -> Prepared:
        fields = {"controller_epoch": 1, "drop": [], "configs": {}} | options
        roles = {key: Role(epoch, sole=True) for key, epoch in lead.items()}
        self.writer.submit(Prepare(version, roles=roles, **fields))
        prepared = self.next()
        assert isinstance(prepared, Prepared)
        assert prepared.version == version
        return prepared

    def produce(self, led: Led, *values: bytes, epoch: int | None = None) -> PendingProduce:
        pending = PendingProduce(b"peer", 1, -1, [None] * len(values))
        for place, value in enumerate(values):
            batch = memoryview(bytearray(encode([value], timestamps=NOW)))
            pending.appends.append(Append(led.log, batch, parse_header(batch), NOW))
            pending.places.append(place)
            pending.leader_epochs.append(led.leader_epoch if epoch is None else epoch)
            pending.size += len(batch)
        self.writer.submit(pending)
        return pending

    def end(self) -> None:
        self.writer.submit(Drain())
        while not isinstance(self.next(), Drained | WriterFailed):
            pass
        self.writer.join()


@pytest.fixture(params=[False, True], ids=["thread", "inline"])
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(tmp_path / "node", inline=request.param)
    yield desk
    desk.storage.close(clean=True)


def test_what_waits_is_committed_together_in_order(desk: Desk) -> None:
    desk.storage.create([(TOPIC, 0), (TOPIC, 1)])
    logs = [Led(desk.storage.logs[TOPIC, partition], -1) for partition in (0, 1)]
    pending = [desk.produce(logs[n % 2], b"%d" % n, b"again") for n in range(10)]
    desk.writer.submit(Drain())
    desk.writer.start()
    committed = desk.next()
    assert isinstance(committed, Committed)
    assert [produce for produce, _ in committed.produces] == pending
    offsets = [
        [r.base_offset for r in results if isinstance(r, Appended)] for _, results in committed.produces
    ]
    assert offsets == [[2 * (n // 2), 2 * (n // 2) + 1] for n in range(10)]
    assert committed.grown == {log.log.key: log.log.size_bytes for log in logs}
    assert isinstance(desk.next(), Drained)
    desk.writer.join()


def test_a_group_ends_before_a_change_of_the_state(desk: Desk) -> None:
    """What was accepted before a topic went is appended before it goes."""
    desk.storage.create([(TOPIC, 0)])
    led = Led(desk.storage.logs[TOPIC, 0], -1)
    desk.produce(led, b"a")
    desk.writer.submit(Prepare(2, 1, [TOPIC], {}, {}))
    desk.produce(led, b"late")
    desk.writer.start()
    first, prepared, second = desk.next(), desk.next(), desk.next()
    assert isinstance(first, Committed)
    assert isinstance(first.produces[0][1][0], Appended)
    assert isinstance(prepared, Prepared)
    assert isinstance(second, Committed)
    assert isinstance(second.produces[0][1][0], UnknownPartitionError)
    deadline = time.monotonic() + PATIENCE_S
    while desk.storage.removed:
        assert time.monotonic() < deadline
        desk.work()
    desk.end()


def test_leader_epochs(desk: Desk) -> None:
    desk.writer.start()
    led = desk.prepare({(TOPIC, 0): 4}).led[TOPIC, 0]
    assert (led.leader_epoch, led.log.leader_epoch) == (4, 4)
    desk.produce(led, b"a", b"b", epoch=4)
    committed = desk.next()
    assert isinstance(committed, Committed)
    desk.prepare({(TOPIC, 0): 5}, version=2)
    desk.produce(led, b"old", epoch=4)
    committed = desk.next()
    assert isinstance(committed, Committed)
    assert isinstance(committed.produces[0][1][0], FencedLeaderEpochError)
    assert committed.grown == {}
    assert list(led.log.epochs) == [(4, 0), (5, 2)]
    # A state that is older than the log is not followed.
    prepared = desk.prepare({(TOPIC, 0): 4, (OTHER, 0): 0}, version=3)
    assert isinstance(prepared.refused[TOPIC, 0], NotLeaderError)
    assert prepared.led.keys() == {(OTHER, 0)}
    desk.end()


def test_the_controller_epoch_is_recorded_before_anything_is_led(desk: Desk) -> None:
    desk.writer.start()
    desk.prepare({(TOPIC, 0): 0}, controller_epoch=7)
    assert desk.storage.controller_epoch == 7
    desk.prepare({}, version=2, controller_epoch=3)
    assert desk.storage.controller_epoch == 7
    desk.end()


def test_a_partition_that_others_hold_is_deleted(desk: Desk) -> None:
    desk.writer.start()
    key = TOPIC, 0
    led = desk.prepare({key: 4, (TOPIC, 1): 4}).led[key]
    desk.prepare({}, version=2, released={key: 4, (OTHER, 0): 9})
    assert not led.log.removed, "a state that is not newer than the log proves nothing"
    desk.prepare({}, version=3, released={key: 5})
    assert led.log.removed
    assert desk.storage.logs.keys() == {(TOPIC, 1)}
    deadline = time.monotonic() + PATIENCE_S
    while desk.storage.removed:
        assert time.monotonic() < deadline
        desk.work()
    again = desk.prepare({key: 6}, version=4).led[key].log
    assert (again.log_end_offset, again.leader_epoch, again.removed) == (0, 6, False)
    desk.end()


def test_one_that_comes_back_waits_until_its_old_log_is_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if that could not be marked yet, for lack of room."""
    key = TOPIC, 0
    desk.storage.create([key])
    old = desk.storage.logs[key]

    def full(_: object) -> None:
        raise StorageFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(desk.storage, "remove", full)
        desk.writer.start()
        desk.prepare({}, released={key: 0})
        assert isinstance(desk.prepare({key: 1}, version=2).refused[key], BusyError)
    deadline = time.monotonic() + PATIENCE_S
    while not old.removed or desk.storage.removed:
        assert time.monotonic() < deadline
        desk.work()
    log = desk.prepare({key: 1}, version=3).led[key].log
    assert log is not old
    desk.end()


def test_nothing_is_deleted_for_a_controller_that_cannot_be_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.storage.create([(TOPIC, 0)])

    def full(_: int) -> None:
        raise StorageFullError("no room")

    desk.writer.start()
    with monkeypatch.context() as patch:
        patch.setattr(desk.storage, "see_controller_epoch", full)
        assert desk.prepare({}, released={(TOPIC, 0): 5}).unreleased == {(TOPIC, 0): 5}
    assert desk.storage.logs.keys() == {(TOPIC, 0)}
    assert desk.prepare({}, released={(TOPIC, 0): 5}, version=2).unreleased == {}
    assert not desk.storage.logs
    desk.end()


def test_retention_is_done_while_nothing_waits(desk: Desk) -> None:
    desk.writer.start()
    config = TopicConfig(retention_bytes=1_000)
    led = desk.prepare({(TOPIC, 0): 0}, configs={TOPIC: config}).led[TOPIC, 0]
    desk.produce(led, *[bytes(500)] * 10)
    desk.next()
    deadline = time.monotonic() + PATIENCE_S
    while led.log.log_start_offset < 7:
        assert time.monotonic() < deadline
        desk.work()
    assert led.log.size_bytes >= 1_000
    desk.end()


def test_the_ballast_comes_back_once_there_is_space(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself: without retention, and though nothing is written."""
    monkeypatch.setattr(ballast, "LOOK_EVERY_S", 0.01)
    looked = []
    disk_free = desk.storage.space.disk_free
    path = desk.folder / "ballast"
    with monkeypatch.context() as patch:
        patch.setattr(desk.storage.space, "disk_free", lambda: looked.append(1) or 0)
        assert desk.storage.ballast.drop()
        desk.writer.start()
        desk.prepare({(TOPIC, 0): 0})

        def is_looked_for() -> bool:
            desk.work()
            return len(looked) > 3

        wait_until(is_looked_for, "it looks again and again")
        assert not path.exists()
        patch.setattr(desk.storage.space, "disk_free", disk_free)

        def is_back() -> bool:
            desk.work()
            return path.exists()

        wait_until(is_back, "it comes back")
    desk.end()
    assert desk.storage.ballast.look_at == inf


def test_a_follower_without_room_to_delete_goes_on_and_deletes_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.writer.start()
    led = desk.prepare({(TOPIC, 0): 1}).led[TOPIC, 0]
    desk.produce(led, b"a", b"b", b"c")
    desk.next()
    step = CopyStep(led.log.key, led.log, 1, high_watermark=3, log_start_offset=2)

    def full(*_: object) -> bool:
        raise StorageFullError("no room even to delete")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "advance_start", full)
        desk.writer.submit(PendingCopy([step], 0))
        committed = desk.next()
    assert isinstance(committed, Committed), committed
    assert (committed.copies, led.log.log_start_offset) == ([(step, None)], 0)
    desk.writer.submit(PendingCopy([step], 0))
    desk.next()
    assert led.log.log_start_offset == 2
    desk.end()


def test_an_interrupted_deletion_goes_on_after_a_restart(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "node", quota_bytes=64 << 20, reserve_bytes=1 << 20)
    storage.create([(TOPIC, 0), (OTHER, 0)])
    storage.remove([(TOPIC, 0)])
    storage.close(clean=True)
    desk = Desk(tmp_path / "node")
    assert desk.storage.removed
    desk.writer.start()
    deadline = time.monotonic() + PATIENCE_S
    while desk.storage.removed:
        assert time.monotonic() < deadline
        desk.work()
    desk.end()
    assert desk.storage.logs.keys() == {(OTHER, 0)}
    desk.storage.close(clean=True)


@pytest.mark.parametrize("waiting", [0, 5])
def test_a_fault_leaves_the_rest_unanswered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    desk.storage.create([(TOPIC, 0)])
    led = Led(desk.storage.logs[TOPIC, 0], -1)
    fault = StorageFaultError("EIO")

    def fail(*_: Any) -> Callable[[], None]:
        raise fault

    monkeypatch.setattr(Storage, "commit", fail)
    pending = [desk.produce(led, b"a") for _ in range(3)]
    desk.writer.submit(Prepare(1, 1, [], {}, {}))
    pending += [desk.produce(led, b"b") for _ in range(waiting)]
    desk.writer.start()
    assert desk.next() == WriterFailed(fault)
    desk.writer.join()
    assert desk.writer.unanswered() == pending
