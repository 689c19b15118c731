"""The errors that reading a partition can end in, each saying where, why, and how to go on.

They stay: every ask raises them again until the application seeks, pauses or gives the partition up.
"""

from tailrace.protocol.errors import (
    CorruptBatchError,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    SerializationError,
    UnknownTopicError,
)
from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import told


def corrupt_batch(
    name: TopicPartition,
    offset: int,
    next_offset: int | None,
    cause: BaseException | None,
    way_out: str | None = None,
) -> CorruptBatchError:
    """A batch that cannot be read; `next_offset` is the first after it, None if that is unknown.

    `way_out`: what to do, in place of a seek.
    """
    if way_out is None:
        way_out = "seek past it" if next_offset is None else f"seek to {next_offset}"
    error = CorruptBatchError(
        f"{name.topic}-{name.partition}: the batch at offset {offset} is corrupt: {cause}. "
        f"The position stays before it; {way_out} to go on without it"
    )
    error.partition, error.offset, error.next_offset = name, offset, next_offset
    error.__cause__ = cause
    return error


def out_of_range(name: TopicPartition, offset: int, start: int, end: int) -> OffsetOutOfRangeError:
    """An offset outside the log, and `auto_offset_reset` is "none"."""
    return OffsetOutOfRangeError(
        f"{name.topic}-{name.partition}: offset {offset} is out of range, the log starts at {start} and ends "
        f'before {end}: seek to one of these, or set auto_offset_reset to "earliest" or "latest"'
    )


def no_offset(name: TopicPartition, start: int, end: int) -> OffsetOutOfRangeError:
    """No offset was stored, and `auto_offset_reset` is "none"."""
    return OffsetOutOfRangeError(
        f"{name.topic}-{name.partition}: no offset is stored, the log starts at {start} and ends "
        f'before {end}: seek to one of these, or set auto_offset_reset to "earliest" or "latest"'
    )


def no_offset_yet(name: TopicPartition) -> OffsetOutOfRangeError:
    """As `no_offset`, while the partition has no leader that could tell where its log lies."""
    return OffsetOutOfRangeError(
        f"{name.topic}-{name.partition}: no offset is stored, and no live leader tells where the log lies: "
        'seek, or set auto_offset_reset to "earliest" or "latest"'
    )


def no_position_yet(cause: str) -> LeaderNotAvailableError:
    """Reading begins at the end of a log whose leader is not there."""
    return LeaderNotAvailableError(
        f"{cause}. It is read from its end, which its next leader will tell: ask again then, or seek"
    )


def deleted_topic(topic: str, *, again: bool) -> UnknownTopicError:
    """The topic was there, and is not any more; `again`: another one has got its name."""
    if again:
        return UnknownTopicError(
            f"topic {topic!r} was deleted while it was read, and a new topic of that name exists: "
            "subscribe or assign again to read the new one, from where auto_offset_reset says"
        )
    return UnknownTopicError(f"topic {topic!r} was deleted while it was read: subscribe or assign without it")


def undeserialized(name: TopicPartition, offset: int, what: str, cause: Exception) -> str:
    """What is wrong with one record whose key or value its deserializer refused."""
    return (
        f"{name.topic}-{name.partition}: the {what} of the record at offset {offset} does not deserialize: "
        f"{type(cause).__name__}: {told(cause)}"
    )


def failed_record(name: TopicPartition, offset: int, what: str, cause: Exception) -> SerializationError:
    """As `undeserialized`, for who has to go round it."""
    error = SerializationError(
        f"{undeserialized(name, offset, what, cause)}. "
        f"The position stays at it; seek to {offset + 1} to go on without it"
    )
    error.__cause__ = cause
    return error


def malformed(name: TopicPartition, offset: int, records: int, cause: object) -> str:
    """What is wrong with a batch that was made wrong: its checksum holds."""
    where = f"{name.topic}-{name.partition}: the batch of {records} records at offset {offset}"
    return f"{where} is malformed: {cause}"
