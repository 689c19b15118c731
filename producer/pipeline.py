"""The producer's part of the I/O thread: sealed batches out, answers in, handles resolved."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from random import Random
from time import monotonic
from typing import Final

from tailrace.client.ahead import Written
from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.pending import Frame
from tailrace.protocol.cluster import PartitionInfo, TopicInfo
from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import BusyError, ClosedError, ErrorCode, TailraceError
from tailrace.protocol.limits import PIPED_BYTES_MAX, UNHEARD_BYTES_MAX
from tailrace.protocol.messages import (
    ACKS_LEADER,
    ACKS_NONE,
    InitProducer,
    Produce,
    Produced,
    ProduceEntry,
    ProducerReady,
    Reply,
)
from tailrace.protocol.parts import Payload

from .accumulator import Accumulator
from .batch import Batch, Identity
from .flushing import notice
from .lane import Lane
from .metrics import Counters
from .sender import SENT, Sender, Shipment

_log = logging.getLogger(__name__)

_STALE_VIEW: Final = frozenset(
    {
        ErrorCode.NOT_LEADER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_COMMITTED,
        ErrorCode.UNKNOWN_TOPIC,
        ErrorCode.UNKNOWN_PARTITION,
    }
)
"""Errors after which the cluster is probably not any more as we know it."""
_NOT_STORED: Final = _STALE_VIEW - {ErrorCode.NOT_COMMITTED} | {ErrorCode.BUSY}
"""Errors of batches that can be sent again and are never stored twice."""
_code_of: Final = attrgetter("error.code")
"""Of a `ProduceResult`."""


class Pipeline:
    """A `Task` of the engine. Everything but `orphan` is called in the I/O thread.

    Batches are encoded here, as they are first sent: they then carry their sequence from the start,
    so that each byte is summed once, and compression runs beside the threads that send.
    """

    def __init__(
        self,
        engine: Engine,
        accumulator: Accumulator,
        *,
        acks: int,
        idempotent: bool,
        compression: Compression,
    ) -> None:
        self.sender = Sender(
            idempotent=idempotent, lookup=self._partition, random=Random(), cut_off=engine.misses
        )
        self.counters = Counters()
        accumulator.obstacle = self.sender.obstacle
        accumulator.waiters.notice = partial(notice, engine, accumulator)
        self._engine = engine
        self._accumulator = accumulator
        self._acks = acks
        self._compression = compression
        self._orphaned = False
        self._unheard_bytes = Counter[int]()
        """Sent with acks=0, by node, since it has answered."""
        self._written: tuple[Batch, Written] | None = None
        """What was sent ahead, and has to be taken note of."""
        if idempotent and not accumulator.linger_s and compression is Compression.NONE:
            accumulator.alarm.wake = partial(engine.ahead.attempt, self._send_ahead)
        self._unforeseen: dict[Lane, Batch] = {}
        """Lanes that gave a batch another stamp than it was expected to get."""

    # -------------------------------------------------------------- as a task

    def step(self, now: float) -> float:
        """Take what is sealed or due, send what may be sent, tell what is resolved."""
        accumulator, sender = self._accumulator, self.sender
        if accumulator.io_thread is None:
            accumulator.io_thread = threading.get_ident()
        if self._written is not None:
            self._take_note(*self._written, now)
        self._tick(now)
        if sender.queues:
            self._ship_all(now)  # first, so that what is open sees the way as free as it is
        batches, due = accumulator.collect(now, sender.wanted)
        for batch in batches:
            sender.add(batch, now)
        if self._unforeseen:
            self._foresee()  # while nothing is sealed that is not in its lane
        if sender.queues:
            self._ship_all(now)
        if sender.fatal is not None:
            accumulator.fail(sender.fatal)
        if sender.resolved:
            self._resolve()
        if self._orphaned:
            self._end_when_done()
        return min(due, sender.due_at)

    def cluster_changed(self) -> None:
        """Topics came or went, leaders moved."""
        self._accumulator.update_topics(self._topic)
        self.sender.update_leaders(monotonic())

    def closed(self, error: TailraceError | None) -> None:
        """Nothing will be sent any more: whatever is still here fails."""
        reason = error or ClosedError(f"{self._engine.name} is closed")
        self._accumulator.fail(reason)
        now = monotonic()
        for batch in self._accumulator.collect(now, self.sender.wanted)[0]:
            self.sender.add(batch, now)
        self.sender.fail(reason)
        self._resolve()

    def _tick(self, now: float) -> None:
        if now >= self.sender.due_at:
            self.sender.tick(now)
            self._identify(now)

    # -------------------------------------------------------------- any thread

    def orphan(self) -> None:
        """The producer was forgotten: deliver what there is, then end the engine."""
        self._orphaned = True
        self._engine.wake()

    def _send_ahead(self) -> None:
        """While the I/O thread sleeps: send what is open, if that is one small batch with nothing in its way.

        What was sent once too often is stored once all the same: it is numbered.
        """
        if self._written is not None or self._unforeseen:
            return
        accumulator = self._accumulator
        sealed = accumulator.seal_alone(self._free_lane)
        if sealed is None:
            return
        batch, lane = sealed
        if batch.foreseen != lane.next_stamp():
            return
        accumulator.encoder.encode_early(batch, accumulator.used_bytes)
        if batch.encoded is None:
            return
        entry = ProduceEntry(batch.topic_id, batch.partition, lane.leader_epoch)
        ahead = self._engine.ahead
        written = Written(ahead.next_id())
        request = Produce(written.request_id, acks=self._acks, entries=[entry])
        noted = (batch, written)
        self._written, ahead.noted = noted, True  # both, with no call between, and before it is written
        ahead.write(lane.leader, written, request, [batch.encoded])

    # ------------------------------------------------------------------ inside

    def _free_lane(self, batch: Batch) -> Lane | None:
        if batch.filled >= PIPED_BYTES_MAX:
            return None
        lane = self.sender.waits_for(batch, monotonic())
        return lane if lane is not None and self._engine.ahead.can_write(lane.leader) else None

    def _take_note(self, batch: Batch, written: Written, now: float) -> None:
        """Nothing has changed since it was sent ahead: it is sent in the same way, but for the sending."""
        self._written = None
        self._accumulator.take(batch)
        self.sender.add(batch, now)
        shipment = self.sender.next_shipment(now)
        assert shipment is not None
        assert shipment.batches == [batch]
        assert batch.stamp == batch.foreseen
        self._ship(shipment, now, written)

    def _topic(self, topic_id: bytes) -> TopicInfo | None:
        return self._engine.cluster.topics.get(topic_id)

    def _partition(self, topic_id: bytes, partition: int) -> PartitionInfo | None:
        topic = self._topic(topic_id)
        return None if topic is None else topic.partitions[partition]

    def _identify(self, now: float) -> None:
        asked = self.sender.ask_identity(now)
        if asked is None:
            return

        def on_reply(reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
            if isinstance(reply, ProducerReady):
                identity = Identity(reply.producer_id, reply.producer_epoch)
                self.sender.identified(identity, monotonic())
            else:
                self.sender.unidentified(_error(reply), monotonic())

        self._engine.request(
            COORDINATOR,
            lambda request_id: InitProducer(
                request_id, producer_id=asked.producer_id, producer_epoch=asked.producer_epoch
            ),
            on_reply=on_reply,
        )

    def _ship_all(self, now: float) -> None:
        while self.sender.queues and (shipment := self.sender.next_shipment(now)) is not None:
            self._ship(shipment, now)

    def _ship(self, shipment: Shipment, now: float, written: Written | None = None) -> None:
        frames = self._encode(shipment, now)
        if not frames:
            return
        self.counters.requests += 1
        request = partial(Produce, acks=self._acks, entries=shipment.entries)
        if self._acks != ACKS_NONE:
            on_reply = partial(self._answered, shipment, now)
            self._engine.request(shipment.node_id, request, frames, on_reply=on_reply, written=written)
        elif self._unheard_bytes[shipment.node_id] >= UNHEARD_BYTES_MAX:
            request = partial(Produce, acks=ACKS_LEADER, entries=shipment.entries)
            on_reply = partial(self._caught_up, shipment, now)
            self._engine.request(shipment.node_id, request, frames, on_reply=on_reply)
        elif self._engine.tell(shipment.node_id, request, frames):
            self._unheard_bytes[shipment.node_id] += shipment.size
            self.sender.handed_over(shipment, now)
        else:
            self.sender.lost(shipment, BusyError(f"no connection to node {shipment.node_id}"), now)

    def _encode(self, shipment: Shipment, now: float) -> list[Payload]:
        """The batches as frames. What cannot be encoded fails alone."""
        frames: list[Payload] = []
        for lane, batch in tuple(zip(shipment.lanes, shipment.batches, strict=True)):
            if batch.stamp != batch.foreseen:
                self._unforeseen[lane] = batch
            try:
                if batch.encoded is None:
                    self._accumulator.encoder.encode(batch, self._compression, batch.stamp)
                frames.append(batch.frame())
            except TailraceError as error:
                self.sender.refused(shipment, batch, error, now)
        return frames

    def _foresee(self) -> None:
        """Have batches encoded under the stamps that they will get, so that they need not be copied."""
        for lane, batch in tuple(self._unforeseen.items()):
            stamp = lane.next_stamp()
            if stamp is not None and self._accumulator.foresee(batch, stamp):
                del self._unforeseen[lane]

    def _answered(
        self, shipment: Shipment, sent_at: float, reply: Reply | TailraceError, _frames: Sequence[Frame]
    ) -> None:
        now = monotonic()
        if isinstance(reply, Produced):
            self.counters.answered(now - sent_at)
            if not _STALE_VIEW.isdisjoint(map(_code_of, reply.results)):
                self._engine.request_refresh()
            self.sender.answered(shipment, reply.results, now)
        else:
            error = _error(reply)
            self.counters.requests_failed += 1
            _log.debug("%s: a produce request to node %d: %s", self._engine.name, shipment.node_id, error)
            self.sender.lost(shipment, error, now)

    def _caught_up(
        self, shipment: Shipment, sent_at: float, reply: Reply | TailraceError, frames: Sequence[Frame]
    ) -> None:
        """With acks=0: the node is through with all that was sent before. No batch is ever stored twice."""
        del self._unheard_bytes[shipment.node_id]
        if isinstance(reply, Produced):
            results = [each if each.error.code in _NOT_STORED else SENT for each in reply.results]
            self._answered(shipment, sent_at, Produced(reply.request_id, results=results), frames)
        else:
            self.sender.handed_over(shipment, monotonic())

    def _resolve(self) -> None:
        resolved = self.sender.take_resolved()
        counters = self.counters
        for batch, base_offset, error in resolved:
            if error is None:
                counters.records_acked += batch.count
                counters.batches_acked += 1
                counters.bytes_acked += batch.encoded_size
            else:
                counters.records_failed += batch.count
            if error is None:  # after an error, a request that still waits to be sent may need it
                self._accumulator.encoder.reuse_memory(batch)
            batch.drop_records()
            batch.outcome.resolve(base_offset, error)
        self._accumulator.settle(resolved)

    def _end_when_done(self) -> None:
        """Nobody will send any more."""
        self._accumulator.fail(ClosedError(f"{self._engine.name} was forgotten without close()"))
        if not self._accumulator.unresolved():
            self._engine.close()


def _error(reply: Reply | TailraceError) -> TailraceError:
    return (
        reply
        if isinstance(reply, TailraceError)
        else TailraceError(f"an answer to another question: {reply!r}")
    )
