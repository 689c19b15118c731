"""What is on its way to peers: counted as they take it, and forgotten."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tailrace.node.unsent import SWEEP_PEERS_MIN, Unsent


@dataclass
class Letter:
    done: bool = False


PEERS = st.sampled_from([b"a", b"b", b"c"])


@given(st.lists(st.tuples(PEERS, st.integers(1, 50), st.booleans())))
def test_bounds_follow_what_was_taken(steps: list[tuple[bytes, int, bool]]) -> None:
    unsent = Unsent(total_max=120, peer_max=60)
    waiting: dict[bytes, list[tuple[Letter, int]]] = {b"a": [], b"b": [], b"c": []}
    for peer, size, send in steps:
        if send:
            letter = Letter()
            unsent.add(peer, letter, size)
            waiting[peer].append((letter, size))
        elif waiting[peer]:
            waiting[peer].pop(0)[0].done = True
        held = {one: sum(size for _, size in letters) for one, letters in waiting.items()}
        for one in waiting:
            # Before the bound on all is reached, what others have taken need not be looked at.
            allowed = unsent.allows(one)
            assert allowed is (held[one] < 60 and sum(held.values()) < 120)
            assert unsent.held(one) == held[one]
    for letters in waiting.values():
        for letter, _ in letters:
            letter.done = True
    for peer in waiting:
        unsent.allows(peer)
    assert (unsent.total, len(unsent)) == (0, 0)


def test_peers_that_never_ask_again_are_forgotten() -> None:
    unsent = Unsent(total_max=10**9, peer_max=10**9)
    for number in range(10_000):
        unsent.add(number.to_bytes(4, "big"), Letter(done=True), 1)
    assert len(unsent) <= SWEEP_PEERS_MIN
