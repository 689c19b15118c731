"""What asyncio code gets back for its records: deliveries to be awaited.

The tasks that wait for records of one batch share one future, and one callback in the I/O thread.
"""

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from math import inf
from typing import Any

import msgspec

from tailrace.client.arguments import check_callable
from tailrace.client.bridge import Bridge
from tailrace.client.notice import TOLD_AFTER_S, Notice
from tailrace.protocol.errors import InvalidArgumentError, TailraceError
from tailrace.protocol.text import plural

from .delivery import Delivery, ManyDelivery, OnError, OnSuccess, Outcome, RangeMetadata, RecordMetadata, Span


class Resolving:
    """The tasks that wait for outcomes: one future and one callback a batch, however many records it has.

    When the first of them has waited for TOLD_AFTER_S there is one `notice` for all.
    """

    def __init__(self, bridge: Bridge, notice: Callable[[str, float], Notice]) -> None:
        self._bridge = bridge
        self._futures: dict[Outcome, asyncio.Future[None]] = {}
        self._notice = notice
        self._watching = False

    def wait(self, outcome: Outcome) -> "asyncio.Future[None]":
        """Done when the outcome is resolved. To be cancelled by whoever waits, without harm to others."""
        loop = self._bridge.enter()
        future = self._futures.get(outcome)
        if future is None:
            future = self._futures[outcome] = loop.create_future()
            outcome.when_done(self._resolved)
            if not self._watching:
                self._watch(loop, None, None)
        return asyncio.shield(future)

    def tell(self, outcome: Outcome, function: Callable[[], object]) -> None:
        """Have the loop call `function` when the outcome is resolved."""
        self._bridge.enter()
        outcome.when_done(lambda _: self._bridge.ring(function))

    def _resolved(self, outcome: Outcome) -> None:
        self._bridge.ring(partial(self._finish, outcome))

    def _watch(self, loop: asyncio.AbstractEventLoop, first: Outcome | None, notice: Notice | None) -> None:
        """Look who waits. `first` was the first one at the last look, and `notice` is for it."""
        self._watching = bool(self._futures) and not self._bridge.closed
        if not self._watching:
            return
        if notice is not None and first in self._futures:
            self._bridge.start(notice.look)
        else:
            first = next(iter(self._futures))
            notice = self._notice(f"{plural(len(self._futures), 'batch')} to be stored", inf)
        loop.call_later(TOLD_AFTER_S, self._watch, loop, first, notice)

    def _finish(self, outcome: Outcome) -> None:
        future = self._futures.pop(outcome)
        if not future.done():
            future.set_result(None)


class AsyncDelivery(msgspec.Struct, gc=False, eq=False):
    """One record on its way; `await` it to have it stored. Resolves by itself, like `Delivery`."""

    outcome: Outcome
    index: int
    resolving: Resolving

    def __repr__(self) -> str:
        return f"<AsyncDelivery {self.outcome.told(self.index)}>"

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        """Raises the error that the record failed with."""
        if not self.outcome.done:
            yield from self.resolving.wait(self.outcome).__await__()
        self.outcome.raise_error()
        return self.outcome.metadata(self.index)

    def done(self) -> bool:
        """Is the answer here, whatever it is?"""
        return self.outcome.done

    def result(self) -> RecordMetadata:
        """What awaiting gives. Raises InvalidArgumentError if there is no answer yet."""
        _check_done(self.outcome.done)
        self.outcome.raise_error()
        return self.outcome.metadata(self.index)

    def exception(self) -> TailraceError | None:
        """The error that the record failed with, or None. Raises InvalidArgumentError as `result`."""
        _check_done(self.outcome.done)
        return self.outcome.error

    def add_callback(self, function: OnSuccess) -> "AsyncDelivery":
        """Have the loop call `function(RecordMetadata)` once the record is stored."""
        check_callable(function)
        delivery = Delivery(self.outcome, self.index)
        self.resolving.tell(self.outcome, partial(delivery.add_callback, function))
        return self

    def add_errback(self, function: OnError) -> "AsyncDelivery":
        """Have the loop call `function(error)` if the record fails."""
        check_callable(function)
        delivery = Delivery(self.outcome, self.index)
        self.resolving.tell(self.outcome, partial(delivery.add_errback, function))
        return self


class AsyncManyDelivery:
    """All records of one `send_many` on their way; `await` it to have them stored."""

    __slots__ = ("_delivery", "_resolving", "_spans")

    def __init__(self, spans: list[Span], resolving: Resolving) -> None:
        self._spans = spans
        self._delivery = ManyDelivery(spans)
        self._resolving = resolving

    def __len__(self) -> int:
        """The number of records."""
        return len(self._delivery)

    def __repr__(self) -> str:
        return f"<AsyncManyDelivery {self._delivery.told()}>"

    def __await__(self) -> Generator[Any, None, list[RangeMetadata]]:
        """Where they lie. Raises the first error, if any record failed."""
        for span in self._spans:
            if not span.outcome.done:
                yield from self._resolving.wait(span.outcome).__await__()
        return self._delivery.result(0)

    def done(self) -> bool:
        """Are all answers here?"""
        return self._delivery.done()

    def result(self) -> list[RangeMetadata]:
        """What awaiting gives. Raises InvalidArgumentError while an answer is missing."""
        _check_done(self.done())
        return self._delivery.result(0)

    def exception(self) -> TailraceError | None:
        """The first error, or None. Raises InvalidArgumentError as `result`."""
        _check_done(self.done())
        return self._delivery.exception(0)


def _check_done(done: bool) -> None:
    if not done:
        raise InvalidArgumentError("there is no answer yet: await the delivery")
