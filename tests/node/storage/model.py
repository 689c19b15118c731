"""What a log must answer, the slow and obvious way."""

from dataclasses import dataclass, field

from tailrace.protocol.limits import PRODUCER_WINDOW_BATCHES


@dataclass
class ModelBatch:
    """A stored batch."""

    base_offset: int
    timestamps: list[int]
    size: int
    body: bytes
    producer: tuple[int, int, int] = (-1, -1, -1)
    """Id, epoch, sequence."""
    leader_epoch: int = -1

    @property
    def last_offset(self) -> int:
        return self.base_offset + len(self.timestamps) - 1


@dataclass
class ModelProducer:
    """A producer id in one partition."""

    epoch: int
    next_sequence: int = 0
    window: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class ModelLog:
    """One partition."""

    batches: list[ModelBatch] = field(default_factory=list)
    producers: dict[int, ModelProducer] = field(default_factory=dict)
    log_start_offset: int = 0
    log_end_offset: int = 0
    epochs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(batch.size for batch in self.batches)

    def decide(self, producer: int, epoch: int, sequence: int, count: int) -> str | int:
        """ "new", or the name of the error, or a duplicate's offset."""
        known = self.producers.get(producer)
        verdict: str | int = "OutOfOrderSequenceError"
        if producer < 0:
            verdict = "new"
        elif known is None:
            verdict = "new" if sequence == 0 else "UnknownProducerIdError"
        elif epoch < known.epoch:
            verdict = "FencedProducerError"
        elif sequence == (known.next_sequence if epoch == known.epoch else 0):
            verdict = "new"
        elif epoch == known.epoch:
            for old_sequence, old_count, offset in known.window:
                if (old_sequence, old_count) == (sequence, count):
                    verdict = offset
        return verdict

    def append(
        self, timestamps: list[int], data: bytes, producer: int = -1, epoch: int = -1, sequence: int = -1
    ) -> str | int:
        """As `decide`; stores what is new."""
        verdict = self.decide(producer, epoch, sequence, len(timestamps))
        if verdict != "new":
            return verdict
        offset, count = self.log_end_offset, len(timestamps)
        leader_epoch = self.epochs[-1][0] if self.epochs else -1
        origin = (producer, epoch, sequence)
        self.batches.append(ModelBatch(offset, timestamps, len(data), data[16:], origin, leader_epoch))
        self.log_end_offset += count
        self.remember(self.batches[-1])
        return verdict

    def remember(self, batch: ModelBatch) -> None:
        """The batch is in its producer's window."""
        producer, epoch, sequence = batch.producer
        count = len(batch.timestamps)
        if producer >= 0:
            known = self.producers.get(producer)
            if known is None or known.epoch != epoch or known.next_sequence != sequence:
                known = self.producers[producer] = ModelProducer(epoch)
            entry = (sequence, count, batch.base_offset)
            known.window = [*known.window, entry][-PRODUCER_WINDOW_BATCHES:]
            known.next_sequence = sequence + count

    def copy(self, batch: ModelBatch) -> None:
        """Append what a leader has."""
        assert batch.base_offset == self.log_end_offset
        kept = [entry for entry in self.epochs if entry[1] < batch.base_offset]
        if not self.batches:
            kept = [entry for entry in kept if entry[0] <= batch.leader_epoch]
        if not kept or kept[-1][0] != batch.leader_epoch:
            kept.append((batch.leader_epoch, batch.base_offset))
        self.epochs = kept
        self.batches.append(batch)
        self.log_end_offset = batch.last_offset + 1
        self.remember(batch)

    def truncate(self, offset: int) -> None:
        """As if nothing had ever come after `offset`; what a window has lost earlier stays lost."""
        while self.batches and self.batches[-1].last_offset >= offset:
            self.log_end_offset = self.batches.pop().base_offset
        end = self.log_end_offset = min(self.log_end_offset, offset)
        self.epochs = [entry for entry in self.epochs if entry[1] < end]
        replayed = ModelLog(batches=[])
        for batch in self.batches:
            replayed.remember(batch)
        for producer, known in list(self.producers.items()):
            left = [entry for entry in known.window if entry[2] < end]
            if left:
                known.window, known.next_sequence = left, sum(left[-1][:2])
            elif producer in replayed.producers:
                self.producers[producer] = replayed.producers[producer]
            else:
                del self.producers[producer]

    def last_epoch(self) -> int:
        """Of the last batch, also if it was deleted."""
        return max((epoch for epoch, start in self.epochs if start < self.log_end_offset), default=-1)

    def retain(self, oldest: int | None, retention_bytes: int | None) -> None:
        """Drop from the head what is older, or what leaves at least `retention_bytes`."""
        while self.batches:
            head = self.batches[0]
            too_old = oldest is not None and max(head.timestamps) < oldest
            too_much = retention_bytes is not None and self.size - head.size >= retention_bytes
            if not too_old and not too_much:
                break
            self.batches.pop(0)
            self.log_start_offset = head.last_offset + 1

    def offset_for_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """The first record at or after a time."""
        for batch in self.batches:
            for place, time in enumerate(batch.timestamps):
                if time >= timestamp:
                    return batch.base_offset + place, time
        return None

    def read(self, offset: int, max_bytes: int, upto: int) -> list[tuple[int, bytes]]:
        """(base offset, bytes from 16 on) of what a read gives."""
        found: list[tuple[int, bytes]] = []
        room = max_bytes
        for batch in self.batches:
            if batch.last_offset < offset:
                continue
            if batch.last_offset >= upto or (found and batch.size > room):
                break
            room -= batch.size
            found.append((batch.base_offset, batch.body))
        return found
