"""A cluster in a few lines: logs, leaders and epochs, and nodes that answer as real ones do."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from tailrace.consumer.fetch_plans import FetchPlan, LookupPlan
from tailrace.node.fetch_sessions import FetchSessions
from tailrace.protocol.batch import parse_header, stamp
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo, TopicConfig, TopicInfo
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import (
    EARLIEST,
    NO_EPOCH,
    OK,
    ErrorInfo,
    Fetch,
    FetchEntry,
    FetchResult,
    OffsetResult,
)

TOPIC_ID = bytes(range(16))
TOPIC = "orders"


def value_at(partition: int, offset: int) -> bytes:
    return b"%d/%d" % (partition, offset)


def batch_of(values: Sequence[bytes | None], base_offset: int, keys: Sequence[bytes] | None = None) -> bytes:
    batch = bytearray(encode(values, keys, timestamps=1_000 + base_offset))
    stamp(memoryview(batch), base_offset, 0)
    return bytes(batch)


@dataclass
class ModelLog:
    """One partition, as its leader has it."""

    partition: int
    leader: int = 1
    epoch: int = 0
    start: int = 0
    end: int = 0
    last_offsets: list[int] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=dict)
    """Where each leader epoch began."""

    def elect(self, leader: int) -> None:
        """Somebody leads in a new epoch; NO_LEADER: nobody does from now on."""
        self.leader = leader
        if leader != NO_LEADER:
            self.epoch += 1
            self.starts[self.epoch] = self.end

    def append(self, count: int) -> None:
        values = [value_at(self.partition, offset) for offset in range(self.end, self.end + count)]
        self.batches.append(batch_of(values, self.end))
        self.end += count
        self.last_offsets.append(self.end - 1)

    def retain(self, batches: int) -> None:
        """Delete so many of the oldest batches."""
        for _ in range(min(batches, len(self.batches))):
            self.start = parse_header(self.batches.pop(0)).last_offset + 1
            self.last_offsets.pop(0)

    def read(self, offset: int, bytes_max: int) -> list[bytes]:
        found: list[bytes] = []
        for batch in self.batches[bisect_left(self.last_offsets, offset) :]:
            if found and sum(map(len, found)) + len(batch) > bytes_max:
                break
            found.append(batch)
        return found

    def end_of(self, epoch: int) -> int:
        """Where it ended, or the log does now; an epoch without a batch begins where the one before did."""
        return min((start for later, start in self.starts.items() if later > epoch), default=self.end)

    def error(self, node: int, epoch: int) -> ErrorInfo:
        if node != self.leader:
            return ErrorInfo(ErrorCode.NOT_LEADER, "not here")
        if epoch < self.epoch:
            return ErrorInfo(ErrorCode.FENCED_LEADER_EPOCH, "older")
        if epoch > self.epoch:
            return ErrorInfo(ErrorCode.UNKNOWN_LEADER_EPOCH, "newer")
        return OK


class ModelCluster:
    """One topic."""

    def __init__(self, partitions: int) -> None:
        self.logs = [ModelLog(index) for index in range(partitions)]
        self.sessions: dict[int, FetchSessions] = {}
        self.restart(1)
        self.restart(2)

    def restart(self, node: int) -> None:
        """The node forgets all fetch sessions. It has room for few of them anyway."""
        self.sessions[node] = FetchSessions(sessions_max=3, entries_max=4)

    def crowd(self, node: int) -> None:
        """Another client begins a session at the node, which may cost others theirs."""
        sessions = self.sessions[node]
        entries = [FetchEntry(TOPIC_ID, index, 0, 0, 1) for index in range(3)]
        session = sessions.ask(
            b"other", Fetch(1, entries=entries, session=1), deadline=0.0, slot=None, has_news=lambda _: True
        )
        sessions.answered(session, [])

    def topic(self) -> TopicInfo:
        partitions = tuple(PartitionInfo((1, 2), log.leader, log.epoch, 0, (1, 2)) for log in self.logs)
        return TopicInfo(TOPIC_ID, TOPIC, TopicConfig(), partitions)

    def fetch(self, plan: FetchPlan, bytes_max: int) -> tuple[list[FetchResult], list[bytes]]:
        """Raises UnknownFetchSessionError."""
        request = Fetch(plan.fetch_id, entries=plan.entries, session=plan.session, epoch=plan.epoch)
        sessions = self.sessions[plan.node]
        session = sessions.ask(b"", request, deadline=0.0, slot=None, has_news=lambda _: True)
        results, frames = self._read(plan.node, list(session.entries.values()), bytes_max)
        sessions.answered(session, [(result.topic_id, result.partition) for result in results])
        return results, frames

    def _read(
        self, node: int, entries: list[FetchEntry], bytes_max: int
    ) -> tuple[list[FetchResult], list[bytes]]:
        results, frames = [], []
        for entry in entries:
            log = self.logs[entry.partition]
            error = log.error(node, entry.leader_epoch)
            if error is OK and not log.start <= entry.offset <= log.end:
                error = ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "outside")
            batches = log.read(entry.offset, bytes_max) if error is OK else []
            if error is not OK:
                results.append(FetchResult(TOPIC_ID, entry.partition, error, -1, -1, 0))
            elif batches:
                results.append(FetchResult(TOPIC_ID, entry.partition, OK, log.end, log.start, len(batches)))
                frames += batches
        return results, frames

    def look_up(self, plan: LookupPlan) -> list[OffsetResult]:
        results = []
        for query in plan.queries:
            log = self.logs[query.partition]
            end = log.end if query.ended_epoch == NO_EPOCH else log.end_of(query.ended_epoch)
            offset = log.start if query.timestamp == EARLIEST else end
            results.append(OffsetResult(log.error(plan.node, query.leader_epoch), offset, -1))
        return results
