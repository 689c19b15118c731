"""`tailrace consume`: read records of topics, alone or as a member of a group."""

import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import click

from tailrace.consumer.failures import corrupt_batch
from tailrace.protocol.errors import CorruptBatchError
from tailrace.protocol.record import TopicPartition

from .offsets import OffsetRange, Place, parse_offsets
from .options import COUNT, Parsed, bootstrap_option, json_option, timeout_option
from .output import LOOK_AT_READER_MS, check_reader
from .record_format import BatchFormat, format_string, json_lines, values_only
from .topic_names import complete_topics, matching, pattern_of, regex_option

if TYPE_CHECKING:
    from tailrace.consumer.consumer import Consumer

START: Final = OffsetRange(Place("start"))
END: Final = OffsetRange(Place("end"))
LOOK_AT_POSITIONS_MS: Final = 200
"""How often to look whether the end is reached without a record in front of it."""


def _parse_offsets(text: str) -> OffsetRange:
    return parse_offsets(text, time.time_ns() // 1_000_000)


@click.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC...", shell_complete=complete_topics)
@click.option(
    "-o",
    "--offset",
    "offsets",
    default="start",
    show_default=True,
    type=Parsed("offset", _parse_offsets),
    help="start, end, N, +N (after the start), -N (the last N), @MS, @DATE (UTC), @-1h, or FROM:TO (also "
    "@-2h:-1h), where TO is not read any more; each partition by itself. What is past the end is the end.",
)
@click.option(
    "-n", "--num", "count", metavar="N", type=COUNT, help="Stop after so many records, such as 500k."
)
@click.option(
    "-p",
    "--partition",
    "partitions",
    type=click.IntRange(min=0),
    multiple=True,
    help="Only this partition; may be repeated.",
)
@click.option(
    "-e",
    "--exit",
    "at_end",
    is_flag=True,
    help="Stop at what is the end now; with -g: when the group has committed that.",
)
@click.option(
    "-f",
    "--format",
    "printer",
    type=Parsed("format", format_string),
    help=r"As kcat does it: '%t %p %o %T %k %s %h\n'; %K and %S are lengths.",
)
@click.option(
    "-g",
    "--group",
    "group_id",
    metavar="GROUP",
    help="Share the partitions with the group's other members, go on where it was, and commit what is "
    "printed; where nothing is committed, -o start or -o end says where to begin.",
)
@regex_option
@bootstrap_option
@timeout_option
@json_option
def consume(
    *,
    group_id: str | None,
    regex: bool,
    topics: Sequence[str],
    offsets: OffsetRange,
    count: int | None,
    partitions: Sequence[int],
    printer: BatchFormat | None,
    bootstrap_servers: str,
    timeout_s: float,
    at_end: bool,
    as_json: bool,
) -> None:
    """Read records and print their values, one a line."""
    from tailrace.consumer.consumer import Consumer

    if printer is not None and as_json:
        raise click.UsageError("--format and --json exclude each other")
    pattern = pattern_of(topics) if regex else None
    timeout_ms = round(timeout_s * 1000)
    consumer = Consumer(
        bootstrap_servers=bootstrap_servers,
        group_id=group_id,
        auto_offset_reset=_reset(offsets) if group_id is None else _group_reset(offsets, partitions),
        enable_auto_commit=False,
        request_timeout_ms=timeout_ms,
    )
    with consumer, way_out(group_id):
        if group_id is not None:
            from .group_reading import Goal, print_as_member

            goal: Goal | None = None
            if at_end:
                named = topics if pattern is None else matching(consumer.topics(), pattern)
                goal = Goal(consumer, named, from_start=offsets == START)
            print_as_member(
                consumer,
                topics,
                pattern=pattern,
                count=count,
                goal=goal,
                printer=printer or _printer(as_json=as_json),
            )
            return
        if pattern is not None:
            topics = matching(consumer.topics(), pattern)
        chosen = _choose(consumer, topics, partitions)
        ends = _go_to(consumer, chosen, offsets, at_end=at_end)
        _print_all(consumer, ends, count, printer or _printer(as_json=as_json))


@contextmanager
def way_out(group_id: str | None) -> Iterator[None]:
    """A program is told to seek past what is corrupt: say how this command does that."""
    try:
        yield
    except CorruptBatchError as error:
        place, after = error.partition, error.next_offset
        if place is None or after is None:
            raise
        if group_id is None:
            by = f"give -p {place.partition} -o {after}"
        else:
            topic = f"{place.topic}:{place.partition}"
            by = f"`tailrace group reset-offsets {group_id} --topic {topic} --to-offset {after} --execute`"
        raise corrupt_batch(place, error.offset, after, error.__cause__, by) from error


def _printer(*, as_json: bool) -> BatchFormat:
    return json_lines if as_json else values_only


def _reset(offsets: OffsetRange) -> Literal["earliest", "latest"]:
    return "latest" if offsets == END else "earliest"


def _group_reset(offsets: OffsetRange, partitions: Sequence[int]) -> Literal["earliest", "latest"]:
    """Where a group begins that has committed nothing."""
    if partitions:
        raise click.UsageError("a group shares all partitions: leave out -p with -g")
    if offsets not in (START, END):
        raise click.UsageError(
            "with -g only -o start or -o end; `tailrace group reset-offsets` sets the offsets of a group"
        )
    return _reset(offsets)


def _choose(consumer: "Consumer", topics: Sequence[str], partitions: Sequence[int]) -> list[TopicPartition]:
    chosen = []
    for topic in dict.fromkeys(topics):
        numbers = sorted(set(partitions) or consumer.partitions_for_topic(topic))
        chosen += [TopicPartition(topic, number) for number in numbers]
    return chosen


def _go_to(
    consumer: "Consumer", chosen: list[TopicPartition], offsets: OffsetRange, *, at_end: bool
) -> dict[TopicPartition, int] | None:
    """Set every position; where to stop in each partition, or None to go on for ever.

    The consumer finds the start and the end by itself, also of partitions whose leader is yet to come back.
    Everything else is counted from where they are now, so that all leaders must be there.
    """
    consumer.assign(chosen)
    if offsets in (START, END) and not at_end:
        return None
    starts, ends = consumer.beginning_offsets(chosen), consumer.end_offsets(chosen)
    if offsets.timestamp is not None:
        firsts = _at_time(consumer, offsets.timestamp, ends)
    else:
        firsts = {place: offsets.first.resolve(starts[place], ends[place]) for place in chosen}
    for place, first in firsts.items():
        consumer.seek(place, first)
    if offsets.last_timestamp is not None:
        return _at_time(consumer, offsets.last_timestamp, ends)
    if offsets.last is not None:
        return {place: offsets.last.resolve(starts[place], ends[place]) for place in chosen}
    return ends if at_end else None


def _at_time(
    consumer: "Consumer", timestamp: int, ends: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first record at or after a time, else the end."""
    found = consumer.offsets_for_times(dict.fromkeys(ends, timestamp))
    return {place: at.offset if at is not None else ends[place] for place, at in found.items()}


def _print_all(
    consumer: "Consumer", ends: dict[TopicPartition, int] | None, count: int | None, printer: BatchFormat
) -> None:
    out = sys.stdout.buffer
    left = count
    look_ms = LOOK_AT_READER_MS if ends is None else LOOK_AT_POSITIONS_MS
    while left != 0 and not _finished(consumer, ends):
        check_reader()
        for batch in consumer.batches(timeout_ms=look_ms):
            wanted = len(batch) if left is None else min(left, len(batch))
            if ends is not None:
                end = ends[TopicPartition(batch.topic, batch.partition)]
                wanted = min(wanted, bisect_left(batch.offsets, end))
            if wanted:
                out.write(printer(batch, wanted))
                out.flush()
            left = None if left is None else left - wanted
            if left == 0 or _finished(consumer, ends):
                return


def _finished(consumer: "Consumer", ends: dict[TopicPartition, int] | None) -> bool:
    """Has every partition reached its end? One that has is not read any further."""
    if ends is None:
        return False
    reading = consumer.assignment() - consumer.paused()
    done = [place for place in reading if consumer.position(place) >= ends[place]]
    consumer.pause(*done)
    return len(done) == len(reading)
