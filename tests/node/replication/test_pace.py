"""How much old data goes into one commit."""

import pytest

from tailrace.node.replication.pace import Pace
from tailrace.protocol.limits import COPY_COMMIT_BYTES_MIN, MIB, REPLICA_FETCH_BYTES_MAX


def settled(pace: Pace, *, quick_s: float, second_bytes: int) -> int:
    """Its size after many commits, each small one followed by one of that size, on a disk of such a speed."""
    for _ in range(500):
        pace.committed(1_000, quick_s)
        pace.committed(pace.size, quick_s + pace.size / second_bytes)
    return pace.size


@pytest.mark.parametrize("quick_ms", [0.2, 1, 2, 5])
def test_a_commit_takes_a_few_times_what_a_small_one_takes(quick_ms: float) -> None:
    size = settled(Pace(), quick_s=quick_ms / 1000, second_bytes=400 * MIB)
    if size > COPY_COMMIT_BYTES_MIN:
        assert size / (400 * MIB) <= 2.5 * quick_ms / 1000


def test_where_each_commit_takes_long_they_become_large() -> None:
    assert settled(Pace(), quick_s=0.02, second_bytes=400 * MIB) == REPLICA_FETCH_BYTES_MAX


def test_where_nobody_waits_they_become_large() -> None:
    pace = Pace()
    for _ in range(100):
        pace.committed(pace.size, 1.0)
    assert pace.size == REPLICA_FETCH_BYTES_MAX


def test_a_disk_that_has_become_slower_is_noticed() -> None:
    pace = Pace()
    assert settled(pace, quick_s=0.000_2, second_bytes=400 * MIB) == COPY_COMMIT_BYTES_MIN
    assert settled(pace, quick_s=0.02, second_bytes=400 * MIB) == REPLICA_FETCH_BYTES_MAX
