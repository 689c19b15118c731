"""Which signal handlers keep a thread of the application's from the I/O thread's work."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer
from tailrace.client.signals import may_call_back
from tailrace.protocol.errors import BusyError
from tailrace.protocol.messages import LATEST
from tailrace.protocol.record import TopicPartition
from tailrace.testing import Cluster

from ..patience import PATIENCE_S


def nothing(_number: int, _frame: Any) -> None:
    """A handler like any other."""


@pytest.fixture
def handle() -> Any:
    """Sets a handler of SIGTERM for the length of the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("handler", "may"),
    [
        (signal.SIG_DFL, False),
        (signal.SIG_IGN, False),
        (signal.default_int_handler, False),
        (nothing, True),
    ],
)
def test_what_may_call_back(handle: Callable[[Any], None], handler: Any, may: bool) -> None:
    handle(handler)
    assert may_call_back() is may
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(may_call_back).result(PATIENCE_S) is False, "handlers run in the main thread"


@pytest.mark.parametrize("handler", [signal.SIG_DFL, nothing])
def test_who_does_the_work(cluster: Cluster, handle: Callable[[Any], None], handler: Any) -> None:
    """Records come either way; where a handler may call back, the I/O thread alone has to do with pipes."""
    handle(handler)
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic(topic := f"handled-by-{getattr(handler, '__name__', 'nobody')}")
    with (
        Producer(cluster.bootstrap_servers, linger_ms=0) as producer,
        Consumer(topic, bootstrap_servers=cluster.bootstrap_servers) as consumer,
    ):
        attempts: list[None] = []
        borrowed: list[None] = []
        ahead, piped = producer._engine.ahead, consumer._session.engine._loop.connections.piped
        can_write, borrow = ahead.can_write, piped.borrow
        ahead.can_write = lambda node: attempts.append(None) or can_write(node)  # type: ignore[method-assign]
        piped.borrow = lambda: borrowed.append(None) or borrow()  # type: ignore[method-assign]
        for number in count():
            assert producer.send(topic, b"%d" % number).result(PATIENCE_S).offset == number
            polled = consumer.poll(PATIENCE_S * 1_000)
            assert [record.offset for records in polled.values() for record in records] == [number]
            if number == 20 if handler is nothing else attempts and borrowed:
                break
    assert handler is not nothing or not (attempts or borrowed)


def test_what_a_handler_raises_is_not_taken_for_the_error_of_a_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be tried again, if the handler's is an error of ours that may pass."""
    raised = count()

    def interrupted(*_: object) -> bool:
        next(raised)
        raise BusyError("the handler's")

    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("asked")
        place = TopicPartition("asked", 0)
        calls: list[Callable[[], object]] = [admin.list_topics, lambda: admin.list_offsets({place: LATEST})]
        for call in calls:
            call()
            with monkeypatch.context() as patched:
                patched.setattr("tailrace.client.answer.wait_in_steps", interrupted)
                before = next(raised)
                with pytest.raises(BusyError, match="the handler's"):
                    call()
            assert next(raised) == before + 2, "it was raised once"
