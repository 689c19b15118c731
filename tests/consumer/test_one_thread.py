"""Two threads in one consumer at once are told so; one after the other may use it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tailrace.consumer import Consumer
from tailrace.consumer.one_thread import OneThread
from tailrace.protocol.errors import ClosedError, ConcurrentUseError

from ..patience import PATIENCE_S, wait_until
from .conftest import Feeder, at, values_of

Make = Callable[..., Consumer]


@pytest.fixture
def topic(feeder: Feeder) -> str:
    """A topic of one partition that holds 0 to 99."""
    topic = feeder.topic()
    feeder.send_numbers(topic, range(100))
    return topic


def test_calls_while_another_thread_is_in_one_are_refused(consume: Make, topic: str) -> None:
    consumer = consume(topic, client_id="reader", auto_offset_reset="latest")
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(consumer.poll, 60_000)
        wait_until(lambda: consumer._session.one_thread.inside != 0, "it polls")
        calls: list[Callable[[], object]] = [
            consumer.poll, lambda: next(iter(consumer)), lambda: next(consumer.batches()), consumer.commit,
            lambda: consumer.seek(at(topic), 0), lambda: consumer.subscribe(topic), consumer.unsubscribe,
            lambda: consumer.assign([at(topic)]), lambda: consumer.pause(at(topic)), consumer.metrics,
            lambda: consumer.resume(at(topic)), lambda: consumer.position(at(topic)), consumer.lag,
            consumer.seek_to_end, consumer.seek_to_beginning, consumer.close,
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(
                ConcurrentUseError, match="reader is not safe for multi-threaded access: thread"
            ):
                call()
        consumer.wakeup()
        assert poll.result(PATIENCE_S) == {}
    consumer.close()
    with pytest.raises(ClosedError):
        consumer.poll()


def test_threads_may_take_turns(consume: Make, topic: str) -> None:
    consumer = consume(topic)
    got: list[bytes] = []
    for _ in range(10):
        reader = threading.Thread(target=lambda: got.extend(values_of(consumer, 10)))
        reader.start()
        reader.join()
    assert got == [b"%d" % number for number in range(100)]


def test_one_loop_may_go_on_in_other_threads(consume: Make, topic: str) -> None:
    """As an event loop does that gives each `next` to a pool."""
    loop = iter(consume(topic, max_poll_records=3))
    got: list[int] = []
    for _ in range(10):
        reader = threading.Thread(target=lambda: got.append(next(loop).offset))
        reader.start()
        reader.join()
    assert got == list(range(10))


def test_a_loop_whose_records_another_thread_took_says_so(consume: Make, topic: str) -> None:
    consumer = consume(topic)
    loop = iter(consumer)
    assert [next(loop).offset for _ in range(3)] == [0, 1, 2]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(values_of, consumer, 2).result(PATIENCE_S) == [b"3", b"4"]
    with pytest.raises(ConcurrentUseError, match="asked for records while a loop of thread"):
        next(loop)
    assert values_of(consumer, 1) == [b"5"]


def test_threads_that_read_at_will_get_no_record_twice_unless_told(consume: Make, topic: str) -> None:
    consumer = consume(topic, max_poll_records=7)
    errors: list[ConcurrentUseError] = []
    got: list[int] = []

    def read() -> None:
        try:
            got.extend(record.offset for record in consumer)
        except ConcurrentUseError as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    wait_until(lambda: errors and len(set(got)) == 100, "all is read, and somebody was told")
    for reader in readers:
        while reader.is_alive():
            consumer.wakeup()
            reader.join(0.01)
    assert set(got) == set(range(100))


def test_a_handler_may_call_where_the_call_of_its_thread_lets_it_in() -> None:
    one_thread, me = OneThread("c", lambda: None), threading.get_ident()
    assert one_thread.enter() == 0
    with pytest.raises(ConcurrentUseError, match="in the middle of another call of the same thread"):
        one_thread.enter()
    assert one_thread.let_in(one_thread.enter) == -me
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConcurrentUseError, match=f"thread {me} is in a call"):
        one_thread.let_in(pool.submit(one_thread.enter).result)
    assert one_thread.inside == me


def test_what_ended_the_consumer_counts_more_than_who_is_in_it() -> None:
    def closed() -> None:
        raise ClosedError("c is closed")

    one_thread = OneThread("c", closed)
    one_thread.enter()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ClosedError):
        pool.submit(partial(one_thread.enter)).result()
