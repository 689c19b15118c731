"""A member whose topic is deleted: told once, and back at work when the topic is."""

from collections.abc import Callable
from time import monotonic

import pytest

from tailrace import Consumer

from ...patience import PATIENCE_S
from ..conftest import Feeder, values_of


def test_a_member_is_told_that_its_topic_was_deleted(
    feeder: Feeder, consume: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    topic, other = feeder.topic(), feeder.topic()
    feeder.send_numbers(topic, range(1))
    consumer = consume(topic, other, group_id="billing")
    assert values_of(consumer, 1) == [b"0"]
    feeder.admin.delete_topic(topic)
    deadline = monotonic() + PATIENCE_S
    while topic not in caplog.text:
        assert monotonic() < deadline
        consumer.poll(10)
    feeder.send_numbers(other, range(1, 2))  # the cluster goes on, and nothing is said again
    assert values_of(consumer, 1) == [b"1"]
    told = [record.getMessage() for record in caplog.records if "does not exist" in record.getMessage()]
    assert told == [
        f"group billing: topic {topic} does not exist any more; it is read again if it is created again"
    ]
    feeder.admin.create_topic(topic, partitions=1)
    feeder.engine.refresh(PATIENCE_S)
    feeder.send_numbers(topic, range(2, 3))
    assert values_of(consumer, 1) == [b"2"]
