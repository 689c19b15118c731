"""A consumer under torture: reads every partition from its first record on, and notes what it was handed."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from tailrace.bench.consuming import RemoteConsumer
from tailrace.bench.records import marks_of
from tailrace.consumer.consumer import Consumer
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import Record, TopicPartition

from .history import Read, Writer
from .tasks import ClientTask

IDLE_MS: Final = 100


def consume(task: ClientTask, history: Writer, until: Callable[[], dict[int, int] | None]) -> None:
    """Until the ends are reached that it is told of."""
    places = [TopicPartition(task.topic, partition) for partition in range(task.partitions)]
    following = dict.fromkeys(range(task.partitions), 0)
    with (Consumer if task.local else RemoteConsumer)(
        bootstrap_servers=task.bootstrap_servers,
        auto_offset_reset="earliest",
        request_timeout_ms=task.request_timeout_ms,
    ) as consumer:
        consumer.assign(places)
        # `while` with a condition would jump back outside of the `with` (tests/test_interruptible.py)
        while True:
            if _reached(following, until()):
                break
            for place, records in consumer.poll(timeout_ms=IDLE_MS).items():
                following[place.partition] = records[-1].offset + 1
                history.write(_read(task, history.now(), place.partition, records))


def _read(task: ClientTask, at_s: float, partition: int, records: Sequence[Record[Any, Any]]) -> Read:
    marks = marks_of([record.value for record in records], task.record_bytes)
    if len(marks.runs) != len(records) or set(marks.runs) != {task.run}:
        raise TailraceError(f"partition {partition} has records that this run did not write")
    return Read(
        at_s=at_s,
        consumer=task.number,
        partition=partition,
        offsets=[record.offset for record in records],
        producers=marks.producers,
        sequences=marks.sequences,
    )


def _reached(following: dict[int, int], ends: dict[int, int] | None) -> bool:
    return ends is not None and all(following[partition] >= end for partition, end in ends.items())
