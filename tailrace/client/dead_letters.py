"""Dead letters: records that could not be worked on, kept in a topic of their own with the reason.

Key, value and headers are the record's own bytes; these headers come on top:

    tailrace.error       what was wrong, text
    tailrace.topic       where it lay
    tailrace.partition
    tailrace.offset
    tailrace.timestamp   of the record, milliseconds since 1970
    tailrace.records     only where one letter stands for a whole batch: how many records it holds. The
                         value is the batch as it is stored

A letter is written before the reader's position passes what it stands for: at least once, therefore twice
when the reader dies in between.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from random import Random
from time import monotonic, time_ns
from typing import Final, NamedTuple

from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import (
    LeaderNotAvailableError,
    TailraceError,
    error_from,
)
from tailrace.protocol.limits import MIB
from tailrace.protocol.messages import Produce, Produced, ProduceEntry
from tailrace.protocol.record import Headers, Record, TopicPartition

from .engine import Engine
from .leaderless import without_leader
from .retry import Backoff, may_pass

LETTERS_BYTES: Final = MIB
"""Letters are written in batches of this size, or of one letter that is larger."""
REASON_CHARACTERS_MAX: Final = 2_000
"""So much of an error's text goes along."""


class Letter(NamedTuple):
    """One dead letter, and the partition that its record lay in."""

    source: TopicPartition
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        names = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + names


def letter_for(record: Record[bytes | None, bytes | None], reason: str, records: int = 1) -> Letter:
    """`record` as it lay in its topic. `records`: it stands for so many, which nobody could read."""
    headers: list[tuple[str, bytes | None]] = [
        *record.headers,
        ("tailrace.error", reason[:REASON_CHARACTERS_MAX].encode(errors="backslashreplace")),
        ("tailrace.topic", record.topic.encode()),
        ("tailrace.partition", str(record.partition).encode()),
        ("tailrace.offset", str(record.offset).encode()),
        ("tailrace.timestamp", str(record.timestamp).encode()),
    ]
    if records > 1:
        headers.append(("tailrace.records", str(records).encode()))
    return Letter(TopicPartition(record.topic, record.partition), record.key, record.value, headers)


def bury(engine: Engine, topic: str, letters: Sequence[Letter], timeout_s: float) -> None:
    """Write dead letters; they are on disk on return. Those of one partition keep their order.

    Raises UnknownTopicError, BatchTooLargeError for a letter that is larger than a record may be,
    and the last retriable error when `timeout_s` is over: some may be written then.
    """
    deadline = monotonic() + timeout_s
    count = len(engine.wait_for_topic(topic, timeout_s).partitions)
    places: dict[int, list[Letter]] = {}
    for letter in letters:
        places.setdefault(letter.source.partition % count, []).append(letter)
    for place, of_place in places.items():
        for some in _in_parts(of_place):
            batch = encode(
                [letter.value for letter in some],
                [letter.key for letter in some],
                time_ns() // 1_000_000,
                [letter.headers for letter in some],
            )
            _append(engine, TopicPartition(topic, place), batch, deadline)


def _in_parts(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    part: list[Letter] = []
    size = 0
    for letter in letters:
        if part and size + letter.size > LETTERS_BYTES:
            yield part
            part, size = [], 0
        part.append(letter)
        size += letter.size
    yield part


def _append(engine: Engine, place: TopicPartition, batch: bytes, deadline: float) -> None:
    backoff = Backoff(Random())
    while (error := _try_to_append(engine, place, batch, deadline)) is not None:
        pause_s = backoff.pause()
        if monotonic() + pause_s >= deadline:
            raise error
        engine.request_refresh()
        engine.pause(pause_s)


def _try_to_append(
    engine: Engine, place: TopicPartition, batch: bytes, deadline: float
) -> TailraceError | None:
    """One attempt; the error that another may be without."""
    info = engine.wait_for_topic(place.topic, max(0.0, deadline - monotonic()))
    leader = info.partitions[place.partition]
    if leader.leader == NO_LEADER:
        return LeaderNotAvailableError(f"dead letters: {without_leader({place: leader})}")
    entry = ProduceEntry(info.topic_id, place.partition, leader.leader_epoch)
    timeout_s = max(0.0, min(deadline - monotonic(), engine.request_timeout_s))
    answer = engine.ask(leader.leader, partial(Produce, entries=[entry]), [batch], timeout_s=timeout_s)
    outcome = answer.attempt(timeout_s)
    if isinstance(outcome, TailraceError):
        return outcome
    reply, _ = outcome
    if not isinstance(reply, Produced) or len(reply.results) != 1:
        raise TailraceError(f"dead letters to {place.topic}-{place.partition}: got {reply!r:.200}")
    refused = reply.results[0].error
    if not refused.code:
        return None
    problem = error_from(refused.code, f"dead letters to {place.topic}-{place.partition}: {refused.message}")
    if may_pass(problem):
        return problem
    raise problem
