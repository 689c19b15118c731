"""A full quota is told once, and so is its end, however many batches are refused and stored meanwhile."""

from pathlib import Path

import pytest

from tailrace.node.shortage import TOLD_EVERY_MS, Shortage
from tailrace.node.storage.environment import Storage
from tailrace.node.storage.log_plan import Append, Appended
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import OutOfOrderSequenceError, StorageFullError

KEY, OTHER = (b"t" * 16, 0), (b"o" * 16, 0)
NOW = 1_700_000_000_000
SIZE = 100_000


class Node:
    """Storage of 4 MiB, and what it tells of its space."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.storage = Storage.open(folder, quota_bytes=4 << 20, reserve_bytes=1 << 20)
        self.storage.create([KEY, OTHER])
        self.shortage = Shortage(self.storage)
        self.now_ms = NOW
        self._caplog = caplog

    def store(self, *sizes: int, key: tuple[bytes, int] = KEY) -> list[type]:
        appends = []
        for size in sizes:
            batch = memoryview(bytearray(encode([b"x" * size])))
            appends.append(Append(self.storage.logs[key], batch, parse_header(batch), self.now_ms))
        results = self.storage.commit(appends)
        self.shortage.note(appends, results, self.now_ms)
        return [type(result) for result in results]

    def fill(self, key: tuple[bytes, int] = KEY) -> None:
        while self.store(SIZE, key=key) == [Appended]:
            pass

    def told(self) -> list[str]:
        told = [record.getMessage().split(":")[0] for record in self._caplog.records]
        self._caplog.clear()
        return told


@pytest.fixture
def node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Node:
    return Node(tmp_path / "node", caplog)


REFUSES, TAKES = "the node refuses writes", "the node takes writes again"


def test_a_full_quota_is_told_once(node: Node) -> None:
    node.store(SIZE)
    assert node.told() == []
    node.fill()
    assert node.shortage.needed_bytes > SIZE
    for _ in range(5):
        assert node.store(SIZE, 100, SIZE) == [StorageFullError, Appended, StorageFullError]
        assert node.store(100) == [Appended]
    assert node.told() == [REFUSES]


def test_it_is_over_when_something_was_deleted(node: Node) -> None:
    node.fill(OTHER)
    assert node.told() == [REFUSES]
    node.shortage.look(NOW)
    assert node.told() == []
    while node.storage.delete_slice(OTHER):
        pass
    node.shortage.look(NOW)
    node.shortage.look(NOW)
    assert node.told() == [TAKES]
    assert node.shortage.needed_bytes == 0
    assert node.store(SIZE) == [Appended]
    assert node.told() == []


def test_a_disk_that_holds_less_than_it_tells(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a user's quota: there is room by all counts, so only a batch that is stored ends it."""
    with monkeypatch.context() as full:
        full.setattr(node.storage, "commit", lambda appends: [StorageFullError("full")] * len(appends))
        node.store(SIZE, SIZE)
    node.shortage.look(NOW)
    node.store(SIZE // 2)
    with monkeypatch.context() as other:  # as of the same producer, behind one that was refused
        behind = OutOfOrderSequenceError("behind")
        other.setattr(node.storage, "commit", lambda appends: [behind] * len(appends))
        node.store(SIZE)
    assert node.told() == [REFUSES]
    node.store(SIZE)
    assert node.told() == [TAKES]


def test_a_disk_that_comes_and_goes_is_told_from_time_to_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        with monkeypatch.context() as full:
            full.setattr(node.storage, "commit", lambda appends: [StorageFullError("full")] * len(appends))
            node.store(SIZE)

    for _ in range(3):
        refuse()
        assert node.shortage.needed_bytes > SIZE
        node.store(SIZE)
        assert node.shortage.needed_bytes == 0
    assert node.told() == [REFUSES, TAKES]
    refuse()
    node.now_ms += TOLD_EVERY_MS - 1
    refuse()
    assert node.told() == []
    node.now_ms += 1
    refuse()
    refuse()
    assert node.told() == [REFUSES], "it goes on, and is known now"
    node.store(SIZE)
    assert node.told() == [TAKES]
    node.now_ms -= 3_600_000
    refuse()
    assert node.told() == [REFUSES], "the clock was set back"
