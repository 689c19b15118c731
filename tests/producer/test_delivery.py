"""What deliveries say of themselves, without a cluster."""

import asyncio

import pytest

from tailrace.client.bridge import Bridge
from tailrace.client.notice import Notice
from tailrace.client.waiting import Sign
from tailrace.producer.async_delivery import AsyncDelivery, AsyncManyDelivery, Resolving
from tailrace.producer.delivery import Delivery, ManyDelivery, Outcome, Span
from tailrace.protocol.errors import DeliveryFailedError, TailraceError

from ..patience import PATIENCE_S


def outcome(base_offset: int = -1, error: TailraceError | None = None, *, resolved: bool = True) -> Outcome:
    """Of a batch of ten records in orders-2."""
    made = Outcome("orders", 2)
    made.starts, made.stamps = [0], [1_000]
    if resolved:
        made.resolve(base_offset, error)
    return made


def test_a_record() -> None:
    assert repr(Delivery(outcome(resolved=False), 3)) == "<Delivery to orders-2: on its way>"
    assert repr(Delivery(outcome(40), 3)) == "<Delivery to orders-2: stored at offset 43>"
    assert repr(Delivery(outcome(), 3)) == "<Delivery to orders-2: sent>", "acks=0"
    failed = Delivery(outcome(error=DeliveryFailedError("no leader")), 3)
    assert repr(failed) == "<Delivery to orders-2: failed: DeliveryFailedError: no leader>"


def test_many_records() -> None:
    here, coming, failed = outcome(40), outcome(resolved=False), outcome(error=DeliveryFailedError("no"))
    spans = [Span(here, 0, 10), Span(coming, 0, 10)]
    assert repr(ManyDelivery(spans)) == "<ManyDelivery of 20 records: 10 on their way>"
    assert repr(ManyDelivery(spans[:1])) == "<ManyDelivery of 10 records: stored>"
    told = repr(ManyDelivery([spans[0], Span(failed, 0, 1)]))
    assert told == "<ManyDelivery of 11 records: failed: DeliveryFailedError: no>"


def test_an_answer_that_comes_as_somebody_begins_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = outcome(resolved=False)

    def answered() -> Sign:
        made.resolve(40, None)
        return Sign()

    monkeypatch.setattr("tailrace.producer.delivery.Sign", answered)
    assert made.wait(PATIENCE_S)


def test_callbacks_that_are_added_as_the_answer_comes() -> None:
    """Each runs once, also what one of them adds."""
    made, called = outcome(resolved=False), list[int]()

    def add(number: int) -> None:
        made.when_done(lambda _: called.append(number))

    made.when_done(lambda _: add(2))
    add(1)
    made.resolve(40, None)
    add(3)
    assert called == [2, 1, 3]


def test_asyncio() -> None:
    async def main() -> None:
        resolving = Resolving(Bridge("test", threads=1), lambda what, s: Notice(what, s, str))
        assert (
            repr(AsyncDelivery(outcome(5), 0, resolving)) == "<AsyncDelivery to orders-2: stored at offset 5>"
        )
        many = AsyncManyDelivery([Span(outcome(5), 0, 1)], resolving)
        assert repr(many) == "<AsyncManyDelivery of 1 record: stored>"

    asyncio.run(main())
