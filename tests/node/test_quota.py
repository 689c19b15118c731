"""What peers hold never passes a bound, and is forgotten when it is given back."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.node.quota import Quota

PEERS = st.sampled_from([b"a", b"b", b"c"])


@given(st.lists(st.tuples(PEERS, st.integers(0, 40), st.booleans())))
def test_bounds_hold(steps: list[tuple[bytes, int, bool]]) -> None:
    quota = Quota(total_max=100, peer_max=60)
    held: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}
    for peer, amount, take in steps:
        if take:
            fits = sum(held[peer]) + amount <= 60 and sum(map(sum, held.values())) + amount <= 100
            assert quota.take(peer, amount) is fits
            if fits:
                held[peer].append(amount)
        elif held[peer]:
            quota.release(peer, held[peer].pop())
        assert quota.held(peer) == sum(held[peer])
        assert quota.total == sum(map(sum, held.values()))
    for peer, amounts in held.items():
        for amount in amounts:
            quota.release(peer, amount)
    assert (quota.total, len(quota)) == (0, 0)
