"""Two replicas that take turns to lead, against a model: whatever is cut off is as if it had never been."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.node.storage import Appended, PartitionLog, Replicated, Storage, schema
from tailrace.protocol.batch import parse_header

from .model import ModelLog
from .support import KEY, NOW, TOPIC, append, batch, open_storage

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
OTHERS = [(TOPIC, 1), (TOPIC, 2)]
"""A partition on either side of the one that is tried: its rows must not be touched."""
TIMES = st.integers(NOW - 50, NOW + 50)
REPLICAS = st.sampled_from([0, 1])


@st.composite
def produced(draw: st.DrawFn) -> dict[str, Any]:
    """One batch, and how its sequence relates to what its producer sent before."""
    return {
        "timestamps": draw(st.lists(TIMES, min_size=1, max_size=3)),
        "size": draw(st.sampled_from([1, 50, 3_000, 9_000])),
        "producer": draw(st.sampled_from([-1, 1, 1, 2])),
        "what": draw(st.sampled_from(["next", "next", "next", "retry", "gap", "next epoch"])),
        "back": draw(st.integers(1, 8)),
    }


class Replica:
    """One storage and the model of its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = ModelLog()
        self.high_watermark = 0
        self.storage: Storage = open_storage(folder)
        self.storage.create([OTHERS[0], KEY, OTHERS[1]])
        for key in OTHERS:
            log = self.storage.logs[key]
            self.storage.begin_epochs([(log, 1)])
            self.storage.commit([append(log, batch(producer=1, sequence=0))])
        self.log.sole_replica = False

    @property
    def log(self) -> PartitionLog:
        return self.storage.logs[KEY]

    def restart(self, clean: bool) -> None:
        self.storage.close(clean)
        self.storage = open_storage(self.folder)
        self.log.sole_replica = False
        stored = self.log.high_watermark
        assert stored == self.high_watermark if clean else stored <= self.high_watermark
        self.high_watermark = stored

    def producers(self) -> dict[int, tuple[int, int, list[tuple[int, ...]]]]:
        """What is stored of the partition's producers."""
        tables, found = self.storage._tables, {}
        with tables.environment.begin(db=tables.producers) as transaction:
            for key, value in transaction.cursor():
                partition_id, producer = schema.read_pair_key(key)
                row = schema.read_producer_row(value)
                if partition_id == self.log.partition_id:
                    window = list(schema.WINDOW_ENTRY.iter_unpack(row.window))
                    found[producer] = (row.epoch, row.next_sequence, window)
                    assert self.storage._producers.lookup(self.log, producer) == row
        return found

    def truncate(self, offset: int) -> None:
        """Also below the high watermark."""
        self.model.truncate(offset)
        assert self.storage.truncate(self.log, offset) == self.model.log_end_offset
        self.high_watermark = min(self.high_watermark, self.model.log_end_offset)

    def reset(self, start: int) -> None:
        while self.storage.reset(self.log, start):
            self.check()
        self.model = ModelLog(log_start_offset=start, log_end_offset=start)
        self.high_watermark = start

    def check(self) -> None:
        assert self.storage.verify().problems == []

    def check_model(self) -> None:
        """Does the storage have what the model has?"""
        log, model, storage = self.log, self.model, self.storage
        assert (log.log_start_offset, log.log_end_offset, log.size_bytes, log.high_watermark) == (
            model.log_start_offset,
            model.log_end_offset,
            model.size,
            self.high_watermark,
        )
        assert log.log_start_offset <= log.hot_offset <= log.log_end_offset
        assert list(log.epochs) == model.epochs
        assert storage.last_epoch(log) == model.last_epoch()
        stored = storage.read(log, log.log_start_offset, 2**30, log.log_end_offset, bytes)
        headers = [parse_header(data) for data in stored]
        assert [(header.base_offset, header.leader_epoch, data[16:])
                for header, data in zip(headers, stored, strict=True)] == [
            (one.base_offset, one.leader_epoch, one.body) for one in model.batches
        ]  # fmt: skip
        assert self.producers() == {
            producer: (known.epoch, known.next_sequence, known.window)
            for producer, known in model.producers.items()
        }


class ReplicaMachine(RuleBasedStateMachine):
    """A follower fetches as in KIP-595: the leader tells by epochs where the logs part."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = Path(tempfile.mkdtemp(prefix="replica-model-", dir=MEMORY))
        self.replicas = [Replica(self.parent / f"node-{number}") for number in range(2)]
        self.epoch = 0
        self.leader = self.replicas[0]

    @property
    def follower(self) -> Replica:
        return self.replicas[0] if self.leader is self.replicas[1] else self.replicas[1]

    @initialize()
    def first_leader(self) -> None:
        self.elect(0)

    @rule(which=REPLICAS)
    def elect(self, which: int) -> None:
        """Whoever it is, and whatever it lacks."""
        self.leader = leader = self.replicas[which]
        self.epoch += 1
        leader.storage.begin_epochs([(leader.log, self.epoch)])
        leader.model.epochs.append((self.epoch, leader.model.log_end_offset))

    @rule(group=st.lists(produced(), min_size=1, max_size=4))
    def produce(self, group: list[dict[str, Any]]) -> None:
        leader, made, expected = self.leader, [], []
        for one in group:
            origin = self.origin(leader.model, one)
            data = batch(
                len(one["timestamps"]), size=one["size"], timestamps=one["timestamps"],
                producer=origin[0], epoch=origin[1], sequence=origin[2],
            )  # fmt: skip
            expected.append(leader.model.append(one["timestamps"], data, *origin))
            made.append(append(leader.log, data))
        for result, verdict in zip(leader.storage.commit(made), expected, strict=True):
            if isinstance(result, Appended):
                assert verdict == (result.base_offset if result.duplicate else "new")
            else:
                assert type(result).__name__ == verdict

    def origin(self, model: ModelLog, one: dict[str, Any]) -> tuple[int, int, int]:
        producer, what = one["producer"], one["what"]
        if producer < 0:
            return -1, -1, -1
        known = model.producers.get(producer)
        epoch, sequence = (known.epoch, known.next_sequence) if known else (0, 0)
        if what == "retry":
            # Of what any replica has: where it was cut off it must be new, elsewhere a duplicate.
            other = self.follower.model.producers.get(producer)
            source = other if other and one["back"] % 2 else known
            if source and len(source.window) >= one["back"]:
                sequence, count, _ = source.window[-one["back"]]
                epoch = source.epoch
                one["timestamps"] = (one["timestamps"] * count)[:count]
        elif what == "gap":
            sequence += one["back"]
        elif what == "next epoch":
            epoch, sequence = epoch + 1, 0
        return producer, epoch, sequence

    @rule(max_bytes=st.sampled_from([1, 5_000, 2**20]))
    def fetch(self, max_bytes: int) -> None:
        """One round of the follower; once it has all, both may raise the high watermark."""
        leader, follower = self.leader, self.follower
        offset, last_epoch = follower.log.log_end_offset, follower.storage.last_epoch(follower.log)
        if last_epoch >= 0:
            epoch, end = leader.storage.end_of_epoch(leader.log, last_epoch)
            if epoch < last_epoch or end < offset:
                _, own_end = follower.storage.end_of_epoch(follower.log, epoch)
                target = min(own_end, end)
                assert target < offset, "the follower comes closer with each round"
                if target >= follower.log.log_start_offset:
                    follower.truncate(target)
                    return
                offset = -1
        leader_start, start = leader.log.log_start_offset, follower.log.log_start_offset
        unknown = last_epoch < 0 and offset == start != leader_start
        if unknown or not leader_start <= offset <= leader.log.log_end_offset:
            follower.reset(leader.log.log_start_offset)
            return
        self.copy(offset, max_bytes)

    def copy(self, offset: int, max_bytes: int) -> None:
        leader, follower = self.leader, self.follower
        read = leader.storage.read(leader.log, offset, max_bytes, leader.log.log_end_offset, bytes)
        copies = [Replicated(follower.log, memoryview(data), parse_header(data), NOW) for data in read]
        results = follower.storage.commit(copies)
        for result, copy in zip(results, copies, strict=True):
            assert result == Appended(copy.header.base_offset, copy.header.last_offset, False), result
            follower.model.copy(
                next(one for one in leader.model.batches if one.base_offset == copy.header.base_offset)
            )
        if follower.log.log_end_offset == leader.log.log_end_offset:
            self.agree(leader, follower)

    def agree(self, leader: Replica, follower: Replica) -> None:
        start = max(leader.log.log_start_offset, follower.log.log_start_offset)
        end = leader.log.log_end_offset
        for replica in (leader, follower):
            replica.storage.raise_high_watermark(replica.log, end + 10)
            replica.high_watermark = end
        if start < end:
            mine, theirs = (
                [one for one in replica.model.batches if one.base_offset >= start]
                for replica in (leader, follower)
            )
            assert mine == theirs

    @rule()
    def catch_up(self) -> None:
        """Until there is nothing left to fetch."""
        for _ in range(50):
            before = self.follower.log.row()
            self.fetch(2**20)
            if self.follower.log.log_end_offset == self.leader.log.log_end_offset and (
                before == self.follower.log.row()
            ):
                return
        raise AssertionError("the follower does not come to an end")

    @rule(which=REPLICAS, place=st.floats(0, 1))
    def truncate(self, which: int, place: float) -> None:
        """Anywhere, also in the middle of a batch; a leader loses no more than its follower would."""
        replica = self.replicas[which]
        if replica is not self.leader:
            start, end = replica.model.log_start_offset, replica.model.log_end_offset
            replica.truncate(start + round(place * (end - start)))

    @rule(place=st.floats(0, 1), beyond=st.integers(0, 3))
    def reset(self, place: float, beyond: int) -> None:
        """To any offset at which the leader has a batch, or none yet."""
        model = self.leader.model
        bases = [one.base_offset for one in model.batches] + [model.log_end_offset + beyond]
        self.follower.reset(bases[round(place * (len(bases) - 1))])

    @rule(which=REPLICAS, share=st.floats(0, 1))
    def retain(self, which: int, share: float) -> None:
        """Of what is committed, the leader deletes, and the follower what the leader has deleted."""
        replica = self.replicas[which]
        keep = int(replica.model.size * share)
        while replica.storage.retain(replica.log, -1, keep, NOW):
            pass
        self.start_at(replica, replica.log.log_start_offset)
        leader_start = self.leader.log.log_start_offset
        while self.follower.storage.advance_start(self.follower.log, leader_start):
            pass
        self.start_at(self.follower, leader_start)

    @staticmethod
    def start_at(replica: Replica, offset: int) -> None:
        model = replica.model
        while model.batches and model.batches[0].last_offset < offset:
            model.log_start_offset = model.batches.pop(0).last_offset + 1
        replica.high_watermark = max(replica.high_watermark, model.log_start_offset)

    @rule(which=REPLICAS, clean=st.booleans())
    def restart(self, which: int, clean: bool) -> None:
        self.replicas[which].restart(clean)

    @rule(timestamp=TIMES, which=REPLICAS)
    def look_up(self, timestamp: int, which: int) -> None:
        replica = self.replicas[which]
        expected = next(
            (
                (one.base_offset + place, time)
                for one in replica.model.batches
                for place, time in enumerate(one.timestamps)
                if time >= timestamp and one.base_offset + place < replica.high_watermark
            ),
            None,
        )
        assert replica.storage.offset_for_timestamp(replica.log, timestamp) == expected

    @invariant()
    def replicas_are_whole(self) -> None:
        for replica in self.replicas:
            replica.check()
            replica.check_model()

    def teardown(self) -> None:
        for replica in self.replicas:
            replica.storage.close(clean=True)
        shutil.rmtree(self.parent)


TestReplicas = ReplicaMachine.TestCase
TestReplicas.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
