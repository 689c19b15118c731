"""Slices of deletion and retention, one at a time and none for ever."""

from math import inf

from tailrace.node.chores import Chore, Chores
from tailrace.protocol.cluster import TopicConfig

A, B = b"a" * 16, b"b" * 16
BOUND, UNBOUND = TopicConfig(retention_ms=1_000), TopicConfig()


def test_nothing_to_do_means_no_timer() -> None:
    chores = Chores(retention_check_s=5)
    chores.configure({A: UNBOUND}, 0)
    assert (chores.next_time(), chores.next(0)) == (inf, None)


def test_partitions_with_a_bound_are_looked_at_in_turn() -> None:
    chores = Chores(retention_check_s=5)
    chores.configure({A: BOUND, B: UNBOUND}, 10)
    keys = [(A, 0), (A, 1), (B, 0)]
    chores.check(keys, 14.9)
    assert (chores.next_time(), chores.next(14.9)) == (15, None)
    chores.check(keys, 15)
    done = []
    while (chore := chores.next(15)) is not None:
        done.append(chore)
        chores.done(chore, more=len(done) == 1)
    assert done == [Chore((A, 0), BOUND), Chore((A, 1), BOUND), Chore((A, 0), BOUND)]
    assert chores.next_time() == 20


def test_deletions_come_first_and_take_the_config_away() -> None:
    chores = Chores(retention_check_s=5)
    chores.configure({A: BOUND, B: BOUND}, 0)
    chores.check([(A, 0), (B, 0)], 5)
    chores.delete([(A, 0)])
    assert chores.next_time() <= 5
    assert chores.next(5) == Chore((A, 0), None)
    chores.done(Chore((A, 0), None), more=True)
    assert chores.next(5) == Chore((A, 0), None)
    chores.done(Chore((A, 0), None), more=False)
    assert chores.next(5) == Chore((B, 0), BOUND), "the retention of a deleted topic is forgotten"


def test_a_full_disk_makes_it_wait_and_not_spin() -> None:
    chores = Chores(retention_check_s=5)
    chores.delete([(A, 0)])
    chores.postpone(100)
    assert (chores.next(104.9), chores.next_time()) == (None, 105)
    assert chores.next(105) == Chore((A, 0), None)


def test_a_config_that_lost_its_bound_ends_the_checks() -> None:
    chores = Chores(retention_check_s=5)
    chores.configure({A: BOUND}, 0)
    chores.check([(A, 0)], 5)
    chores.configure({A: UNBOUND}, 6)
    assert chores.next(6) is None
    assert chores.next_time() == inf
