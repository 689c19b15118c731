"""The errors with which a record is not taken."""

from tailrace.protocol.errors import (
    BatchTooLargeError,
    BufferFullError,
    TailraceError,
    TimedOutError,
    UnknownPartitionError,
)
from tailrace.protocol.text import plural


def memory_full(
    used_bytes: int, memory_bytes: int, max_block_s: float, obstacle: TailraceError | None
) -> BufferFullError:
    """There was no memory in time, because of the `obstacle` if there is a known one."""
    error = BufferFullError(
        f"{used_bytes} of {memory_bytes} bytes of buffer_memory wait for acknowledgement,"
        f" for longer than max_block_ms ({max_block_s * 1000:.0f} ms){because(obstacle)}"
    )
    error.__cause__ = obstacle
    return error


def because(obstacle: TailraceError | None) -> str:
    """What stands in the way of what is not stored yet, for the end of a message."""
    return "" if obstacle is None else f": {obstacle}"


def late(batches: int, timeout_s: float | None, obstacle: TailraceError | None) -> TimedOutError:
    """A flush could not wait for so many, because of the `obstacle` if there is a known one."""
    what = f"{plural(batches, 'batch')} got no answer within {timeout_s} s; still on the way"
    return TimedOutError(what + because(obstacle))


def too_large(size: int, most: int) -> BatchTooLargeError:
    """No batch can take it."""
    return BatchTooLargeError(
        f"a record of {size} bytes; at most {most} fit"
        " (the least of max_request_size, buffer_memory and the protocol's bound)"
    )


def no_partition(topic: str, partition: int, count: int) -> UnknownPartitionError:
    """The topic does not have it."""
    return UnknownPartitionError(f"topic {topic!r} has no partition {partition}; it has 0 to {count - 1}")
