"""What `Producer.metrics()` tells."""

from dataclasses import dataclass
from typing import Any

from .accumulator import Accumulator
from .sender import Sender


@dataclass
class Counters:
    """Counts since the producer was made. Written by the I/O thread alone."""

    records_acked: int = 0
    records_failed: int = 0
    batches_acked: int = 0
    bytes_acked: int = 0
    """As they were stored: encoded and compressed."""
    requests: int = 0
    requests_failed: int = 0
    answers: int = 0
    answer_s_total: float = 0.0
    answer_s_max: float = 0.0

    def answered(self, seconds: float) -> None:
        """A request was answered after so long."""
        self.answers += 1
        self.answer_s_total += seconds
        self.answer_s_max = max(self.answer_s_max, seconds)


def metrics_of(
    counters: Counters, accumulator: Accumulator, sender: Sender, paths: dict[int, str]
) -> dict[str, Any]:
    """Counts since the producer was made, sizes in bytes, times in milliseconds; how batches travel."""
    batches, answers = counters.batches_acked, counters.answers
    return {
        "records_acked": counters.records_acked,
        "records_failed": counters.records_failed,
        "bytes_acked": counters.bytes_acked,
        "batches_acked": batches,
        "batches_retried": sender.retries,
        "batches_in_flight": sender.batches_in_flight,
        "batch_records_mean": counters.records_acked / batches if batches else 0.0,
        "batch_bytes_mean": counters.bytes_acked / batches if batches else 0.0,
        "requests": counters.requests,
        "requests_failed": counters.requests_failed,
        "request_latency_ms_mean": counters.answer_s_total / answers * 1000 if answers else 0.0,
        "request_latency_ms_max": counters.answer_s_max * 1000,
        "buffer_used_bytes": accumulator.used_bytes,
        "buffer_total_bytes": accumulator.memory_bytes,
        "paths": paths,
    }
