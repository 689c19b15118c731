"""Produce requests wait for every partition that they need, and are answered once."""

from tailrace.node.replication.waiting import WaitingProduces
from tailrace.node.work import PendingProduce

A, B = (bytes(16), 0), (bytes(16), 1)


def produce(request_id: int) -> PendingProduce:
    return PendingProduce(b"peer", request_id, -1, [])


def test_all_that_is_needed() -> None:
    waiting = WaitingProduces()
    both, only_a = produce(1), produce(2)
    waiting.add(both, {A: 10, B: 5})
    waiting.add(only_a, {A: 12})
    assert waiting.advanced(A, 9) == []
    assert waiting.advanced(A, 11) == []
    assert waiting.advanced(B, 5) == [both]
    assert waiting.advanced(A, 12) == [only_a]
    assert waiting.count == 0
    assert waiting.advanced(A, 100) == []


def test_in_their_order() -> None:
    waiting = WaitingProduces()
    produces = [produce(number) for number in range(5)]
    for number, each in enumerate(produces):
        waiting.add(each, {A: number})
    assert waiting.advanced(A, 3) == produces[:4]


def test_giving_up() -> None:
    waiting = WaitingProduces()
    both, only_a, only_b = produce(1), produce(2), produce(3)
    waiting.add(both, {A: 10, B: 5})
    waiting.add(only_a, {A: 12})
    waiting.add(only_b, {B: 12})
    assert waiting.give_up([A]) == [both, only_a]
    assert waiting.advanced(B, 5) == []
    assert waiting.give_up_all() == [only_b]
    assert waiting.count == 0
