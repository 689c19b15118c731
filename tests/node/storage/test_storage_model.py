"""Any sequence of calls against a model: appends, retries, gaps, retention, restarts, deletion, lookups."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailrace.node.storage import Append, Appended, PartitionLog, Storage
from tailrace.protocol.batch import parse_header

from .model import ModelLog
from .support import NOW, TOPIC, append, batch, open_storage

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: it is the logic that is tried here."""
PARTITIONS = st.sampled_from([(TOPIC, 0), (TOPIC, 1), (b"other topic 1234", 0)])
TIMES = st.integers(NOW - 50, NOW + 50)


@st.composite
def appends(draw: st.DrawFn) -> dict[str, Any]:
    """One batch: what it holds, and how its sequence relates to what its producer sent before."""
    return {
        "key": draw(PARTITIONS),
        "timestamps": draw(st.lists(TIMES, min_size=1, max_size=4)),
        "size": draw(st.sampled_from([1, 50, 700, 3_000, 9_000])),
        "producer": draw(st.sampled_from([-1, 1, 2])),
        "what": draw(st.sampled_from(["next", "next", "next", "retry", "gap", "next epoch", "old epoch"])),
        "back": draw(st.integers(1, 70)),
    }


class StorageMachine(RuleBasedStateMachine):
    """Runs `Storage` and a `ModelLog` a partition side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = Path(tempfile.mkdtemp(prefix="storage-model-", dir=MEMORY))
        self.folder = self.parent / "node-1"
        self.storage: Storage = open_storage(self.folder)
        self.logs: dict[tuple[bytes, int], ModelLog] = {}

    @initialize()
    def first_partition(self) -> None:
        self.create((TOPIC, 0))

    def log(self, key: tuple[bytes, int]) -> PartitionLog:
        return self.storage.logs[key]

    @rule(key=PARTITIONS)
    def create(self, key: tuple[bytes, int]) -> None:
        self.storage.create([key])
        self.logs.setdefault(key, ModelLog())

    @precondition(lambda self: self.logs)
    @rule(key=PARTITIONS)
    def begin_epoch(self, key: tuple[bytes, int]) -> None:
        if key in self.logs:
            model, log = self.logs[key], self.log(key)
            self.storage.begin_epochs([(log, log.leader_epoch + 2)])
            model.epochs.append((log.leader_epoch, model.log_end_offset))

    @rule(group=st.lists(appends(), min_size=1, max_size=8))
    def append(self, group: list[dict[str, Any]]) -> None:
        made: list[Append] = []
        expected: list[str | int] = []
        offsets: list[int] = []
        for one in group:
            model = self.logs.get(one["key"])
            if model is None:
                continue
            header, data = self.make(model, one)
            offsets.append(model.log_end_offset)
            expected.append(model.append(one["timestamps"], data, *header))
            made.append(append(self.log(one["key"]), data))
        for result, verdict, offset in zip(self.storage.commit(made), expected, offsets, strict=True):
            if not isinstance(result, Appended):
                assert type(result).__name__ == verdict
            elif result.duplicate:
                assert result.base_offset == verdict
            else:
                assert (verdict, result.base_offset) == ("new", offset)

    def make(self, model: ModelLog, one: dict[str, Any]) -> tuple[tuple[int, int, int], bytes]:
        producer, what, count = one["producer"], one["what"], len(one["timestamps"])
        known = model.producers.get(producer)
        epoch, sequence = (known.epoch, known.next_sequence) if known else (0, 0)
        if what == "retry" and known and len(known.window) >= one["back"]:
            sequence, count, _ = known.window[-one["back"]]
            one["timestamps"] = (one["timestamps"] * count)[:count]
        elif what == "gap":
            sequence += one["back"]
        elif what == "next epoch":
            epoch, sequence = epoch + 1, 0
        elif what == "old epoch" and epoch:
            epoch -= 1
        header = (producer, epoch, sequence) if producer >= 0 else (-1, -1, -1)
        data = batch(
            len(one["timestamps"]),
            size=one["size"],
            timestamps=one["timestamps"],
            producer=header[0],
            epoch=header[1],
            sequence=header[2],
        )
        return header, data

    @rule(key=PARTITIONS, oldest=TIMES)
    def retain_by_time(self, key: tuple[bytes, int], oldest: int) -> None:
        if key in self.logs:
            self.logs[key].retain(oldest, None)
            while self.storage.retain(self.log(key), 100, -1, oldest + 100):
                pass

    @rule(key=PARTITIONS, share=st.floats(0, 1))
    def retain_by_bytes(self, key: tuple[bytes, int], share: float) -> None:
        if key in self.logs:
            keep = int(self.logs[key].size * share)
            self.logs[key].retain(None, keep)
            while self.storage.retain(self.log(key), -1, keep, NOW):
                pass

    @rule(key=PARTITIONS)
    def delete(self, key: tuple[bytes, int]) -> None:
        self.logs.pop(key, None)
        while self.storage.delete_slice(key):
            pass

    @rule(key=PARTITIONS)
    def remove_only(self, key: tuple[bytes, int]) -> None:
        self.logs.pop(key, None)
        self.storage.remove([key])

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        storage_id = self.storage.storage_id
        self.storage.close(clean)
        self.storage = open_storage(self.folder)
        assert (self.storage.clean, self.storage.storage_id) == (clean, storage_id)

    @rule(key=PARTITIONS, timestamp=TIMES)
    def look_up(self, key: tuple[bytes, int], timestamp: int) -> None:
        if key in self.logs:
            found = self.storage.offset_for_timestamp(self.log(key), timestamp)
            assert found == self.logs[key].offset_for_timestamp(timestamp)

    @rule(key=PARTITIONS, place=st.floats(0, 1), max_bytes=st.integers(1, 20_000), short=st.integers(0, 5))
    def read(self, key: tuple[bytes, int], place: float, max_bytes: int, short: int) -> None:
        if key in self.logs:
            model, log = self.logs[key], self.log(key)
            start, end = model.log_start_offset, model.log_end_offset
            offset, upto = start + int(place * (end - start)), end - short
            found = self.storage.read(log, offset, max_bytes, upto, bytes)
            assert [(parse_header(data).base_offset, data[16:]) for data in found] == model.read(
                offset, max_bytes, upto
            )

    @invariant()
    def logs_agree(self) -> None:
        assert set(self.storage.logs) == set(self.logs)
        for key, model in self.logs.items():
            log = self.log(key)
            assert (log.log_start_offset, log.log_end_offset, log.high_watermark, log.size_bytes) == (
                model.log_start_offset,
                model.log_end_offset,
                model.log_end_offset,
                model.size,
            )
            assert log.log_start_offset <= log.hot_offset <= log.log_end_offset
            assert list(log.epochs) == model.epochs

    def teardown(self) -> None:
        report = self.storage.verify()
        self.storage.close(clean=True)
        shutil.rmtree(self.parent)
        assert report.problems == []


TestStorage = StorageMachine.TestCase
TestStorage.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
