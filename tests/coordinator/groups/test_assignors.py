"""Assignors: complete, even, and moving no more than it takes."""

from collections.abc import Mapping
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.coordinator.groups.assignors import Assignor, Target, Wish, choose, contiguous, uniform
from tailrace.coordinator.groups.state import Key

TOPICS = [bytes([letter]) * 16 for letter in b"abcd"]
member_ids = st.sampled_from([f"m{number}" for number in range(8)])
counts_of = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 12), min_size=1)
subscriptions = st.dictionaries(member_ids, st.frozensets(st.sampled_from(TOPICS)), min_size=1)


def assign(
    assignor: Assignor,
    wanted: Mapping[str, frozenset[bytes]],
    counts: Mapping[bytes, int],
    before: Target | None = None,
) -> Target:
    before = before or {}
    wishes = {m: Wish(m, topics, before.get(m, frozenset())) for m, topics in wanted.items()}
    return assignor(wishes, counts)


def check_complete(
    target: Target, wanted: Mapping[str, frozenset[bytes]], counts: Mapping[bytes, int]
) -> None:
    """Each partition that somebody subscribes to goes to one of its subscribers."""
    given_out = sorted(key for keys in target.values() for key in keys)
    topics = frozenset().union(*wanted.values())
    assert given_out == sorted((t, p) for t in topics for p in range(counts.get(t, 0)))
    assert target.keys() == wanted.keys()
    for member_id, keys in target.items():
        assert {topic_id for topic_id, _ in keys} <= wanted[member_id]


def moves(before: Target, after: Target) -> int:
    owner = {key: member_id for member_id, keys in before.items() for key in keys}
    return sum(key in owner and owner[key] != member_id for member_id, keys in after.items() for key in keys)


@pytest.mark.parametrize("assignor", [uniform, contiguous])
@given(wanted=subscriptions, later=subscriptions, counts=counts_of, more=counts_of)
def test_every_partition_goes_to_one_subscriber(
    assignor: Assignor,
    wanted: dict[str, frozenset[bytes]],
    later: dict[str, frozenset[bytes]],
    counts: dict[bytes, int],
    more: dict[bytes, int],
) -> None:
    first = assign(assignor, wanted, counts)
    check_complete(first, wanted, counts)
    check_complete(assign(assignor, later, more, first), later, more)


@given(wanted=subscriptions, later=subscriptions, counts=counts_of)
def test_uniform_leaves_no_move_that_would_even_out(
    wanted: dict[str, frozenset[bytes]], later: dict[str, frozenset[bytes]], counts: dict[bytes, int]
) -> None:
    target = assign(uniform, later, counts, assign(uniform, wanted, counts))
    for giver, keys in target.items():
        for topic_id, _ in keys:
            for taker, topics in later.items():
                assert topic_id not in topics or len(target[taker]) + 1 >= len(keys), (giver, taker)


@given(wanted=subscriptions, counts=counts_of)
def test_uniform_is_at_rest_after_one_time(
    wanted: dict[str, frozenset[bytes]], counts: dict[bytes, int]
) -> None:
    target = assign(uniform, wanted, counts)
    assert assign(uniform, wanted, counts, target) == target


@given(
    before=st.frozensets(member_ids, min_size=1),
    after=st.frozensets(member_ids, min_size=1),
    counts=counts_of,
)
def test_uniform_moves_only_what_must_move(
    before: frozenset[str], after: frozenset[str], counts: dict[bytes, int]
) -> None:
    """With equal subscriptions the fewest moves are known: what its members had above their new shares."""
    topics = frozenset(counts)
    old = assign(uniform, dict.fromkeys(sorted(before), topics), counts)
    new = assign(uniform, dict.fromkeys(sorted(after), topics), counts, old)
    share, larger = divmod(sum(counts.values()), len(after))
    loads = sorted((len(old.get(member_id, ())) for member_id in after), reverse=True)
    shares = [share + (place < larger) for place in range(len(after))]
    excess = sum(max(0, load - most) for load, most in zip(loads, shares, strict=True))
    orphans: set[Key] = {key for member_id in before - after for key in old[member_id]}
    assert moves(old, new) == excess + len(orphans)
    assert sorted(map(len, new.values()), reverse=True) == shares


def test_range_gives_the_same_stretch_of_each_topic() -> None:
    wanted = dict.fromkeys(["m1", "m0", "m2"], frozenset(TOPICS[:2]))
    target = assign(contiguous, wanted, {TOPICS[0]: 7, TOPICS[1]: 7})
    stretches = {"m0": (0, 1, 2), "m1": (3, 4), "m2": (5, 6)}
    for member_id, stretch in stretches.items():
        assert target[member_id] == {(topic_id, p) for topic_id in TOPICS[:2] for p in stretch}


def test_the_group_uses_what_most_members_ask_for() -> None:
    assert choose(["uniform", "range", "uniform"]) == "uniform"
    assert choose(["uniform", "range"]) == "range"


def test_a_thousand_members_join_and_one_leaves_in_seconds() -> None:
    """No exact bound, which a busy machine would miss: only that the cost does not explode."""
    topics = [number.to_bytes(16, "big") for number in range(100)]
    counts = dict.fromkeys(topics, 100)
    wanted = {f"m{n:04}": frozenset(topics[: 50 + n % 50]) for n in range(1_000)}
    started = process_time()
    target = assign(uniform, wanted, counts)
    del wanted["m0007"]
    later = assign(uniform, wanted, counts, target)
    assert process_time() - started < 20
    check_complete(later, wanted, dict.fromkeys(topics[:99], 100))
