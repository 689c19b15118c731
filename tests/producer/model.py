"""A node's side of the produce protocol, as small as it can be: logs, and the rules of deduplication."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from tailrace.producer.batch import Batch, Identity, advance
from tailrace.producer.delivery import Outcome
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.limits import PRODUCER_WINDOW_BATCHES
from tailrace.protocol.messages import OK, ErrorInfo, ProduceResult

TOPIC_ID = bytes(16)
DELIVERY_TIMEOUT_S = 120.0


def sealed(partition: int, count: int, now: float, topic_id: bytes = TOPIC_ID) -> Batch:
    """A batch of `count` records as the accumulator hands it over."""
    batch = Batch(Outcome("t", partition), topic_id, partition, now, now + DELIVERY_TIMEOUT_S)
    batch.values = [b"v"] * count
    batch.mark_time(0, 1)
    batch.count = count
    batch.size = count * 100
    return batch


def refusal(code: ErrorCode) -> ProduceResult:
    """A batch's result that is an error."""
    return ProduceResult(ErrorInfo(int(code), code.name), -1, -1)


class Copy:
    """One batch as it travels: what the producer later changes in its own object does not reach it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.identity, self.sequence = batch.stamp.identity, batch.stamp.sequence
        self.count = batch.count


class Window:
    """What a partition remembers of one producer id."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.next_sequence = 0
        self.entries: deque[tuple[int, int, int]] = deque(maxlen=PRODUCER_WINDOW_BATCHES)

    def clone(self) -> "Window":
        """For a snapshot."""
        copy = Window(self.epoch)
        copy.next_sequence = self.next_sequence
        copy.entries = self.entries.copy()
        return copy


class Log:
    """One partition. It can lose its tail, as power loss under `flush: relaxed` may make it do."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.end = 0
        self.windows: dict[int, Window] = {}
        self.past: list[tuple[int, int, dict[int, Window]]] = []
        self.offsets: dict[Batch, int] = {}

    def append(self, copy: Copy) -> ProduceResult:
        """Store, recognise or refuse one batch."""
        window = self.windows.get(copy.identity.producer_id)
        if window is None and copy.sequence != 0:
            return refusal(ErrorCode.UNKNOWN_PRODUCER_ID)
        if window is not None and copy.identity.producer_epoch < window.epoch:
            return refusal(ErrorCode.FENCED_PRODUCER)
        if window is None or copy.identity.producer_epoch > window.epoch:
            window = Window(copy.identity.producer_epoch)
        for sequence, count, offset in window.entries:
            if (sequence, count) == (copy.sequence, copy.count):
                return ProduceResult(OK, offset, 0)
        if copy.sequence != window.next_sequence:
            return refusal(ErrorCode.OUT_OF_ORDER_SEQUENCE)
        return self._store(copy, window)

    def lose_tail(self, appends: int) -> list[Batch]:
        """Forget the last `appends` batches and everything learnt from them."""
        lost: list[Batch] = []
        for _ in range(min(appends, len(self.past))):
            length, self.end, self.windows = self.past.pop()
            lost += self.batches[length:]
            del self.batches[length:]
        return lost

    def _store(self, copy: Copy, window: Window) -> ProduceResult:
        saved = {pid: known.clone() for pid, known in self.windows.items()}
        self.past.append((len(self.batches), self.end, saved))
        offset = self.end
        self.batches.append(copy.batch)
        self.offsets[copy.batch] = offset
        self.end += copy.count
        window.entries.append((copy.sequence, copy.count, offset))
        window.next_sequence = advance(copy.sequence, copy.count)
        self.windows[copy.identity.producer_id] = window
        return ProduceResult(OK, offset, 0)


class Ids:
    """The coordinator's producer ids."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def init(self, asked: Identity) -> Identity | ErrorCode:
        """A new id, or the next epoch of a known one; an older epoch is fenced."""
        if asked.producer_id < 0:
            self.epochs.append(0)
            return Identity(len(self.epochs) - 1, 0)
        if self.epochs[asked.producer_id] != asked.producer_epoch:
            return ErrorCode.FENCED_PRODUCER
        self.epochs[asked.producer_id] += 1
        return Identity(asked.producer_id, self.epochs[asked.producer_id])


def in_order(batches: Sequence[Batch], sent: Sequence[Batch]) -> bool:
    """Is `batches` a subsequence of `sent`, nothing twice?"""
    places = [sent.index(batch) for batch in batches]
    return all(before < after for before, after in pairwise(places))
