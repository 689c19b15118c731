"""A producing and consuming load that checks itself: nothing lost, nothing twice, order kept."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

from tailrace import Consumer, Producer
from tailrace.producer import RecordMetadata
from tailrace.protocol.errors import DeliveryFailedError

from ..patience import PATIENCE_S, wait_until

KEYS = 20
BURST = 50
PACE_S = 0.001


class Load:
    """A producer that sends numbered records and a consumer that reads them, a thread each.

    Every other burst goes record by record, the rest in columns. A node's answer is waited for
    `request_timeout_ms` before its batches are sent again.
    """

    def __init__(self, bootstrap_servers: str, topic: str, request_timeout_ms: int = 30_000) -> None:
        self.sent = 0
        self.acked: dict[int, tuple[int, int]] = {}
        """Where the records lie that were sent one by one and acknowledged: partition and offset."""
        self.acks = 0
        self.read: list[tuple[int, int, int, int]] = []
        """Partition, offset, key and number of each record, as they came."""
        self._last_acked = [-1] * KEYS
        self._last_read = [-1] * KEYS
        self._topic = topic
        self._producer = Producer(
            bootstrap_servers,
            linger_ms=2,
            batch_size=8_192,
            buffer_memory=256 * 1024,
            request_timeout_ms=request_timeout_ms,
        )
        self._consumer = Consumer(
            topic,
            bootstrap_servers=bootstrap_servers,
            auto_offset_reset="earliest",
            request_timeout_ms=request_timeout_ms,
        )
        self._stop_sending = threading.Event()
        self._stop_reading = threading.Event()
        self._errors: list[BaseException] = []
        self._sender = threading.Thread(target=self._guarded, args=(self._send_all,))
        self._reader = threading.Thread(target=self._guarded, args=(self._read_all,))

    def __enter__(self) -> "Load":
        self._sender.start()
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Without an error: everything sent is waited for, acknowledged and read; then checked."""
        self._stop_sending.set()
        self._sender.join()
        try:
            if error is None:
                self._producer.flush(PATIENCE_S)
                wait_until(lambda: self._errors or len(self.read) >= self.sent, "all records are read")
        finally:
            self._stop_reading.set()
            self._consumer.wakeup()
            self._reader.join()
            self._consumer.close()
            with suppress(DeliveryFailedError):
                self._producer.close(0)
        if error is None:
            self.check()

    @property
    def retried(self) -> int:
        """Batches that were sent again."""
        return int(self._producer.metrics()["batches_retried"])

    @property
    def in_flight(self) -> int:
        """Records that were sent and not acknowledged yet."""
        return self.sent - self.acks

    def wait_for_traffic(self) -> None:
        """Until records of every key that are sent from now on were acknowledged and read."""
        goal = self.sent + 2_000
        wait_until(lambda: self._errors or min(self._last_acked) >= goal, f"acknowledged up to {goal}")
        wait_until(lambda: self._errors or min(self._last_read) >= goal, f"read up to {goal}")
        self.raise_errors()

    def wait_for_flight(self) -> None:
        """Until records are on their way, so that what happens now happens to them."""
        wait_until(lambda: self._errors or self.in_flight > BURST, "records are in flight")
        self.raise_errors()

    def raise_errors(self) -> None:
        """What went wrong in the threads."""
        if self._errors:
            raise self._errors[0]

    def check(self) -> None:
        """Every number once, each key's in order, each at the offset that was acknowledged."""
        self.raise_errors()
        numbers = Counter(number for *_, number in self.read)
        assert [number for number, times in numbers.items() if times > 1] == [], "came twice"
        assert set(range(self.sent)) - numbers.keys() == set(), "lost"
        assert numbers.total() == self.sent
        next_offset: Counter[int] = Counter()
        last = [-1] * KEYS
        for partition, offset, key, number in self.read:
            assert offset == next_offset[partition], "a hole in the offsets"
            next_offset[partition] += 1
            assert number > last[key], f"{number} came after {last[key]}"
            last[key] = number
        places = {number: (partition, offset) for partition, offset, _, number in self.read}
        assert self.acked.items() <= places.items(), "acknowledged at another place"

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._errors.append(error)

    def _send_all(self) -> None:
        while not self._stop_sending.wait(PACE_S):
            numbers = range(self.sent, self.sent + BURST)
            values, keys = [b"%d" % n for n in numbers], [b"%d" % (n % KEYS) for n in numbers]
            if self.sent % (2 * BURST) == 0:
                for number, value, key in zip(numbers, values, keys, strict=True):
                    sent = self._producer.send(self._topic, value, key)
                    sent.add_callback(partial(self._on_ack, number))
            else:
                many = self._producer.send_many(self._topic, values, keys)
                many.add_callback(partial(self._on_acks, numbers))
            self.sent += BURST

    def _on_ack(self, number: int, at: RecordMetadata) -> None:
        self.acked[number] = (at.partition, at.offset)
        self._on_acks([number], at)

    def _on_acks(self, numbers: Sequence[int], _: object) -> None:
        self.acks += len(numbers)
        for number in numbers:
            self._last_acked[number % KEYS] = number

    def _read_all(self) -> None:
        while not self._stop_reading.is_set():
            for place, records in self._consumer.poll(1_000).items():
                for record in records:
                    key, number = int(record.key), int(record.value)
                    self.read.append((place.partition, record.offset, key, number))
                    self._last_read[key] = number
