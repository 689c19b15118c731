"""Which requests a node may serve: known partition, and the very epoch in which it leads it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tailrace.node.leaders import Leaders, Led
from tailrace.node.storage.partition_log import PartitionLog
from tailrace.protocol.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    StorageFullError,
    UnknownLeaderEpochError,
    UnknownTopicError,
)

TOPIC = b"t" * 16
LOG = cast(PartitionLog, SimpleNamespace(name="t-0"))


@pytest.fixture
def leaders() -> Leaders:
    leaders = Leaders()
    leaders.lead({(TOPIC, 0): Led(LOG, 5)})
    return leaders


def test_only_the_same_epoch_is_served(leaders: Leaders) -> None:
    assert leaders.find(TOPIC, 0, 5) is LOG
    with pytest.raises(FencedLeaderEpochError, match="epoch 5, the request says 4"):
        leaders.find(TOPIC, 0, 4)
    with pytest.raises(UnknownLeaderEpochError):
        leaders.find(TOPIC, 0, 6)


@pytest.mark.parametrize("key", [(TOPIC, 1), (b"x" * 16, 0)])
def test_what_is_not_known_may_be_known_soon(leaders: Leaders, key: Any) -> None:
    with pytest.raises(NotLeaderError) as caught:
        leaders.find(*key, 5)
    assert caught.value.retriable


def test_deleted_topics_are_named_so(leaders: Leaders) -> None:
    leaders.resign([(TOPIC, 0)])
    leaders.deleted([TOPIC])
    with pytest.raises(UnknownTopicError):
        leaders.find(TOPIC, 0, 5)
    leaders.deleted(n.to_bytes(16, "big") for n in range(20_000))
    with pytest.raises(NotLeaderError):
        leaders.find(TOPIC, 0, 5)


def test_a_log_that_could_not_be_made_says_why_until_it_is(leaders: Leaders) -> None:
    leaders.refuse({(TOPIC, 0): StorageFullError("no room")})
    for _ in range(2):
        with pytest.raises(StorageFullError, match="no room"):
            leaders.find(TOPIC, 0, 5)
    leaders.lead({(TOPIC, 0): Led(LOG, 6)})
    assert leaders.find(TOPIC, 0, 6) is LOG
