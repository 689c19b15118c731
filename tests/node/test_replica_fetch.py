"""What a leader tells a follower: whether the two logs go together."""

from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.handlers import replica_fetch
from tailrace.node.storage import epochs
from tailrace.protocol.errors import OffsetOutOfRangeError
from tailrace.protocol.replica_messages import ReplicaFetch, ReplicaFetchEntry

TOPIC = bytes(16)


def look(start: int, end: int, *, known: epochs.Epochs, offset: int, last_epoch: int) -> Any:
    """What a leader whose log has these ends makes of an empty log at `offset`."""
    log = SimpleNamespace(
        key=(TOPIC, 0), name="t-0", log_start_offset=start, log_end_offset=end, high_watermark=end
    )
    broker: Any = SimpleNamespace(
        leaders=SimpleNamespace(find=lambda *_: log),
        replication=SimpleNamespace(is_replica=lambda *_: True, fetched=lambda *_: None),
        storage=SimpleNamespace(end_of_epoch=lambda _, epoch: epochs.end_of(known, epoch, end)),
    )
    entry = ReplicaFetchEntry(TOPIC, 0, 3, offset, last_epoch, offset, offset)
    request = ReplicaFetch(1, node_id=2, node_epoch=1, entries=[entry])
    return replica_fetch._look(broker, request, entry, 0.0)


def test_an_emptied_log_of_another_history_is_told_where_it_parts() -> None:
    for end in (60, 100, 150):
        found = look(0, end, known=((1, 0), (3, 50)), offset=100, last_epoch=1)
        assert (found.diverging_epoch, found.diverging_end, found.log_start_offset) == (1, 50, 0)


def test_an_emptied_log_of_the_same_history_is_brought_on() -> None:
    assert look(40, 150, known=((1, 0), (3, 120)), offset=100, last_epoch=1).offset == 100
    assert look(100, 150, known=((3, 100),), offset=100, last_epoch=1).offset == 100
    assert look(40, 100, known=((1, 0), (3, 100)), offset=100, last_epoch=1) is None


@pytest.mark.parametrize("offset", [60, 100, 160])
def test_an_empty_log_without_epochs_begins_with_the_leaders(offset: int) -> None:
    with pytest.raises(OffsetOutOfRangeError):
        look(50, 150, known=((1, 0),), offset=offset, last_epoch=-1)
    assert look(offset, offset + 1, known=((1, 0),), offset=offset, last_epoch=-1).offset == offset
