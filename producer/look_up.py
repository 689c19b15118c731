"""What a topic is, for a producer that does not know it yet."""

from typing import Final

from tailrace.client.engine import Engine
from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.errors import ConnectionFailedError, TimedOutError

BRIEF_S: Final = 1.0
"""Who waits no longer may have been too impatient: then nothing is wrong but that."""


def look_up(engine: Engine, name: str, max_block_s: float) -> TopicInfo:
    """Ask for the topic if need be. Raises UnknownTopicError, ClosedError, and like `Engine.call`."""
    try:
        return engine.wait_for_topic(name, max_block_s)
    except (ConnectionFailedError, TimedOutError) as error:
        if max_block_s > BRIEF_S:
            raise
        within = f"within max_block_ms ({max_block_s * 1000:.0f} ms)"
        raise type(error)(f"topic {name!r} was not known {within}: {error}") from error
