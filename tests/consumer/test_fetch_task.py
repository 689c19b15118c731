"""How the I/O thread and the application's thread meet."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic
from typing import Any

import pytest

from tailrace.client import desk as client_desk
from tailrace.client.pending import PendingRequests, ReplyHandler
from tailrace.client.piped_replies import PipedReplies
from tailrace.consumer.assigned import AssignedPartition
from tailrace.consumer.config import ConsumerConfig
from tailrace.consumer.fetch_task import FetchTask
from tailrace.consumer.fetcher import Fetcher
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import OK, ErrorInfo, Fetched, FetchResult
from tailrace.protocol.record import TopicPartition
from tailrace.transport.poller import Poller

from ..patience import PATIENCE_S, wait_until
from .model import TOPIC, TOPIC_ID, ModelCluster, batch_of


class OneEngine:
    """Keeps the handler of the last request."""

    def __init__(self) -> None:
        self.on_reply: ReplyHandler | None = None

    def request(self, _node: int, _request: Any, *, on_reply: ReplyHandler, **_options: object) -> None:
        self.on_reply = on_reply

    def desk(self) -> client_desk.Desk:
        """Nothing comes there through pipes."""
        return client_desk.Desk(PipedReplies(Poller(), PendingRequests()), lambda: None)

    def submit(self, action: Callable[[], None]) -> None:
        """At once."""
        action()

    def check(self) -> None:
        """It never ends."""

    def wake(self) -> None:
        """It never sleeps."""


class Desk:
    """One partition, a thread that waits for it, and the test in place of the I/O thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: Any = OneEngine()
        self.fetcher = Fetcher(partition_bytes=10_000, reset="earliest", random=Random(0))
        self.task = FetchTask(self.engine, self.fetcher, self.lock, ConsumerConfig())
        self.partition = AssignedPartition(TopicPartition(TOPIC, 0), TOPIC_ID, 0, "earliest", Random(0))
        self.fetcher.assign(self.partition, ModelCluster(1).topic())

    def fetch(self) -> Callable[..., None]:
        """Send a fetch; gives what answers it with these batches, or this error."""
        self.task.step(0.0)
        on_reply = self.engine.on_reply

        def answer(*batches: bytes, error: ErrorInfo = OK) -> None:
            result = FetchResult(TOPIC_ID, 0, error, 9, 0, len(batches))
            on_reply(Fetched(1, results=[result]), batches)

        return answer

    @contextmanager
    def waiting(self) -> Iterator[list[bool]]:
        """A thread waits; when it is back, the list says whether there was something to hand over."""
        found: list[bool] = []

        def wait() -> None:
            self.task.wait(PATIENCE_S)
            with self.lock:
                found.append(bool(self.fetcher.ready))

        thread = threading.Thread(target=wait)
        thread.start()
        self.until_it_waits()
        yield found
        thread.join(PATIENCE_S)

    def until_it_waits(self) -> None:
        wait_until(lambda: self.task._desk.taken, "the thread waits")


def test_who_waits_is_woken_by_a_record() -> None:
    desk = Desk()
    answer = desk.fetch()
    with desk.waiting() as found:
        answer(batch_of([b"x"], 0))
    assert found == [True]
    assert [raw.end for raw in desk.partition.buffer] == [1]


def test_who_was_woken_for_a_reply_of_which_nothing_is_left_waits_again() -> None:
    desk = Desk()
    stale = desk.fetch()
    with desk.waiting() as found:
        with desk.lock:
            desk.fetcher.seek(desk.partition, 5)
        stale(batch_of([b"x"], 0))
        desk.until_it_waits()
        assert found == []
        desk.fetch()(batch_of([b"x"], 5))
    assert found == [True]
    assert [raw.end for raw in desk.partition.buffer] == [6]


def test_an_error_wakes_though_it_comes_without_batches() -> None:
    desk = Desk()
    answer = desk.fetch()
    with desk.waiting() as found:
        answer(error=ErrorInfo(ErrorCode.CORRUPT_BATCH, "the node says so"))
    assert found == [True]
    assert desk.partition.failure is not None


def test_what_is_waited_for_in_a_call_is_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies to fetches are the I/O thread's then: nobody asks for more when the call returns."""
    desk, read = Desk(), list[bool]()
    desk.fetch()(batch_of([b"x"], 0))  # it trickles
    monkeypatch.setattr(client_desk.Desk, "wait", lambda *_, reads: read.append(reads))
    assert desk.task.wait_for(lambda: bool(read), monotonic() + PATIENCE_S)
    desk.fetcher.pop(desk.partition)
    desk.task.wait(0.001)
    assert read[:2] == [False, True]
