"""Requests, replies, and the ways in which a reply does not come."""

import re
import threading
import time
from functools import partial

import pytest

from tailrace.protocol.cluster import Listener, NodeChanged, NodeRemoved
from tailrace.protocol.errors import (
    BusyError,
    ConnectionFailedError,
    MalformedRequestError,
    TailraceError,
    TimedOutError,
    UnknownTopicError,
)
from tailrace.protocol.limits import UNSENT_REQUESTS_MAX
from tailrace.protocol.messages import (
    OK,
    DescribeLogs,
    Fetch,
    Fetched,
    FetchEntry,
    LogsDescribed,
    Ping,
    Pong,
    Produce,
    Produced,
    ProduceEntry,
    ProduceResult,
)
from tailrace.transport.endpoint import boot_id

from ..patience import BUSY_S, PATIENCE_S
from .in_thread import attach

PRODUCE = partial(Produce, entries=[ProduceEntry(b"t" * 16, 0, 0)])


def pong(request):
    return Pong(request.request_id)


def failing(count, error, then=pong):
    """An answer that is `error` for the first `count` requests."""
    left = [error] * count

    def answer(request):
        return left.pop() if left else then(request)

    return answer


@pytest.fixture
def join(coordinator, engine, node, eventually):
    """`join(listener, node_id=1)`: the node is part of the cluster, and the engine knows."""

    def join(listener, node_id=1, alive=True):
        coordinator.change(NodeChanged(node(node_id, listener, alive=alive)))
        eventually(lambda: engine.cluster.version == coordinator.state.version)

    return join


def seconds_in(caught):
    """The time that an error tells."""
    number, unit = re.search(r"([\d.]+) (m?s)\b", str(caught.value)).groups()
    return float(number) / (1000 if unit == "ms" else 1)


class Replies:
    """What handlers were given, and in which thread."""

    def __init__(self):
        self.seen = []
        self.threads = set()

    def __call__(self, reply, frames):
        self.seen.append(reply)
        self.threads.add(threading.current_thread().name)


def test_a_request_and_its_reply_with_frames(engine, start_node, join) -> None:
    batches = [b"a" * 10, b"b" * 200_000]
    node = start_node(lambda request: (Fetched(request.request_id), batches))
    join(node.listener)
    entry = FetchEntry(b"t" * 16, 0, 0, 0, 1)
    reply, frames = engine.call(1, partial(Fetch, entries=[entry]), timeout_s=PATIENCE_S)
    assert isinstance(reply, Fetched)
    assert frames == batches
    assert node.requests[0].entries == [entry]


def test_a_node_on_this_machine_over_tcp_only(coordinator, start_engine, start_node, node, tmp_path) -> None:
    """Nobody listens at its ipc socket: who takes that gets no answer."""
    (tmp_path / "node.sock").touch()
    listener = Listener(start_node(pong).listener.tcp, f"ipc://{tmp_path}/node.sock", boot_id())
    coordinator.change(NodeChanged(node(1, listener)))
    engine = start_engine(coordinator.address, local=False)
    engine.ready(PATIENCE_S)
    reply, _ = engine.call(1, Ping, timeout_s=PATIENCE_S)
    assert isinstance(reply, Pong)
    local = start_engine(coordinator.address)
    local.ready(PATIENCE_S)
    with pytest.raises(ConnectionFailedError, match="node 1 at ipc://"):
        local.call(1, Ping, timeout_s=0.2)


def test_frames_arrive_whole_and_in_order(engine, start_node, join, eventually) -> None:
    join(start_node(lambda request: Produced(request.request_id, results=[ProduceResult(OK, 1, 0)])).listener)
    replies = Replies()

    def send_many():
        for _ in range(50):
            engine.request(1, PRODUCE, (b"x" * 100_000,), on_reply=replies)

    engine.submit(send_many)
    eventually(lambda: len(replies.seen) == 50)
    ids = [reply.request_id for reply in replies.seen]
    assert ids == sorted(ids)
    assert replies.threads == {"test"}, "handlers run in the I/O thread"


def test_a_failure_becomes_an_exception(engine, start_node, join) -> None:
    join(start_node(lambda request: UnknownTopicError("no such topic here")).listener)
    with pytest.raises(UnknownTopicError, match="no such topic here"):
        engine.call(1, Ping, timeout_s=PATIENCE_S)


def test_a_call_is_retried_while_the_error_is_retriable(engine, start_node, join) -> None:
    node = start_node(failing(3, BusyError("later")))
    join(node.listener)
    assert isinstance(engine.call(1, Ping, timeout_s=PATIENCE_S)[0], Pong)
    assert len(node.requests) == 4


def test_a_call_ends_with_the_last_error(engine, start_node, join) -> None:
    join(start_node(failing(1000, BusyError("later"))).listener)
    started = time.monotonic()
    with pytest.raises(BusyError, match="later"):
        engine.call(1, Ping, timeout_s=1.5)
    assert time.monotonic() - started < 1.5 + BUSY_S


def test_errors_that_the_caller_gives_up_on_at_once(engine, start_node, join) -> None:
    node = start_node(failing(1000, BusyError("later")))
    join(node.listener)
    with pytest.raises(BusyError):
        engine.call(1, Ping, timeout_s=PATIENCE_S, fatal=(BusyError,))
    assert len(node.requests) == 1


def test_silence_ends_in_a_time_out_that_says_who_and_how_long(engine, start_node, join) -> None:
    node = start_node(lambda request: None)
    join(node.listener)
    told = rf"node 1 at {node.address} did not answer within 2\d\d ms$"
    with pytest.raises(TimedOutError, match=told) as caught:
        engine.call(1, Ping, timeout_s=0.2)
    assert 0.2 <= seconds_in(caught) < 0.2 + BUSY_S


def test_time_outs_come_in_their_order(engine, start_node, join, eventually) -> None:
    join(start_node(lambda request: None).listener)
    order = []

    def send():
        for timeout_s in (0.15, 0.05, 0.1):
            engine.request(
                1, Ping, on_reply=lambda reply, frames, t=timeout_s: order.append(t), timeout_s=timeout_s
            )

    engine.submit(send)
    eventually(lambda: len(order) == 3)
    assert order == [0.05, 0.1, 0.15]


def test_a_reply_after_the_time_out_is_dropped(engine, start_node, join, eventually) -> None:
    replies, gate = Replies(), threading.Event()

    def late(request):
        if isinstance(request, DescribeLogs):
            gate.wait(PATIENCE_S)
            return LogsDescribed(request.request_id)
        return pong(request)

    join(start_node(late).listener)
    engine.submit(lambda: engine.request(1, DescribeLogs, on_reply=replies, timeout_s=0.05))
    eventually(lambda: replies.seen)
    gate.set()
    assert isinstance(engine.call(1, Ping, timeout_s=PATIENCE_S)[0], Pong)
    assert [type(reply) for reply in replies.seen] == [TimedOutError]


def test_a_lost_connection_fails_what_was_sent(engine, start_node, join, eventually) -> None:
    node = start_node(lambda request: pong(request) if isinstance(request, Ping) else None)
    join(node.listener)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    replies = Replies()
    for _ in range(3):
        engine.submit(lambda: engine.request(1, PRODUCE, (b"batch",), on_reply=replies))
    eventually(lambda: len(node.requests) == 4)
    node.stop()
    eventually(lambda: len(replies.seen) == 3)
    assert {type(reply) for reply in replies.seen} == {ConnectionFailedError}
    assert str(replies.seen[0]) == f"node 1 at {node.address}: the connection was lost"


def test_a_node_is_reached_again_at_its_new_address(engine, start_node, join) -> None:
    first = start_node(pong)
    join(first.listener)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    first.stop()
    second = start_node(pong)
    assert second.listener != first.listener
    join(second.listener)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    assert len(second.requests) == 1


def test_a_node_that_moved_while_its_old_address_still_answers(engine, start_node, join, eventually) -> None:
    first, second = start_node(lambda request: None), start_node(pong)
    join(first.listener)
    replies = Replies()
    engine.submit(lambda: engine.request(1, Ping, on_reply=replies))
    eventually(lambda: first.requests)
    join(second.listener)
    eventually(lambda: replies.seen)
    assert "it has another address now" in str(replies.seen[0])
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    assert len(second.requests) == 1


def test_a_node_is_reached_again_at_the_same_address(engine, start_node, join, free_address) -> None:
    first = start_node(pong)
    join(first.listener)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    first.stop()
    again = start_node(pong, tcp=first.listener.tcp)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    assert len(again.requests) == 1


def test_requests_wait_for_the_connection_in_their_order(engine, start_node, join, eventually) -> None:
    node = start_node(pong)
    node.stop()
    join(node.listener)
    replies = Replies()
    for _ in range(10):
        engine.submit(lambda: engine.request(1, Ping, on_reply=replies))
    again = start_node(pong, tcp=node.listener.tcp)
    eventually(lambda: len(replies.seen) == 10)
    ids = [request.request_id for request in again.requests]
    assert ids == sorted(ids)


def test_what_is_asked_again_after_a_loss_keeps_its_order(engine, start_node, join, eventually) -> None:
    """Or an idempotent producer's retries would overtake each other."""
    first = start_node(lambda request: pong(request) if isinstance(request, Ping) else None)
    join(first.listener)
    engine.call(1, Ping, timeout_s=PATIENCE_S)
    done, errors = [], []

    def produce(number):
        engine.request(1, partial(PRODUCE, acks=1), (b"%d" % number,), on_reply=partial(replied, number))

    def replied(number, reply, frames):
        if isinstance(reply, TailraceError):
            errors.append(number)
            produce(number)
        else:
            done.append(number)

    engine.submit(lambda: [produce(number) for number in range(5)])
    eventually(lambda: len(first.requests) == 6)
    first.stop()
    engine.submit(lambda: [produce(number) for number in range(5, 10)])
    start_node(lambda request: Produced(request.request_id), tcp=first.listener.tcp)
    eventually(lambda: len(done) == 10)
    assert errors[:5] == [0, 1, 2, 3, 4]
    assert done[done.index(0) : done.index(0) + 5] == [0, 1, 2, 3, 4]
    assert [number for number in done if number >= 5] == [5, 6, 7, 8, 9]


def test_a_node_that_started_again_is_tried_at_once(
    engine, coordinator, node, start_node, join, monkeypatch
) -> None:
    """Its new epoch says that it is there: the pause between attempts is cut short."""
    for name in ("RECONNECT_MS_MIN", "RECONNECT_MS_MAX"):
        monkeypatch.setattr(f"tailrace.transport.connection.{name}", 600_000)
    first = start_node(pong)
    join(first.listener)
    first.stop()
    with pytest.raises(ConnectionFailedError, match="could not be reached"):
        engine.call(1, Ping, timeout_s=0.5)
    answer = engine.ask(1, Ping, timeout_s=PATIENCE_S)
    start_node(pong, tcp=first.listener.tcp)
    coordinator.change(NodeChanged(node(1, first.listener, epoch=2)))
    answer.wait(PATIENCE_S)


def test_what_was_never_sent_fails_as_not_connected(engine, start_node, join) -> None:
    node = start_node(pong)
    node.stop()
    join(node.listener)
    with pytest.raises(
        ConnectionFailedError, match=rf"node 1 at {node.address} could not be reached for "
    ) as caught:
        engine.call(1, Ping, timeout_s=0.2)
    assert 0.2 <= seconds_in(caught) < 0.2 + BUSY_S


def test_a_node_that_is_down_or_unknown_fails_at_once(
    engine, coordinator, start_node, join, eventually
) -> None:
    node = start_node(pong)
    join(node.listener, alive=False)
    with pytest.raises(ConnectionFailedError, match="node 1 is down"):
        engine.ask(1, Ping, timeout_s=PATIENCE_S).wait(PATIENCE_S)
    with pytest.raises(ConnectionFailedError, match="node 7 is not part of the cluster"):
        engine.ask(7, Ping, timeout_s=PATIENCE_S).wait(PATIENCE_S)


def test_requests_for_a_node_that_leaves_do_not_wait(engine, coordinator, start_node, join) -> None:
    node = start_node(pong)
    node.stop()
    join(node.listener)
    answer = engine.ask(1, Ping, timeout_s=PATIENCE_S)
    coordinator.change(NodeRemoved(1))
    with pytest.raises(ConnectionFailedError, match="node 1 is not part of the cluster"):
        answer.wait(PATIENCE_S)


def test_unsent_requests_are_bounded(engine, start_node, join, eventually) -> None:
    node = start_node(pong)
    node.stop()
    join(node.listener)
    replies = Replies()

    def flood():
        for _ in range(UNSENT_REQUESTS_MAX + 2):
            engine.request(1, Ping, on_reply=replies)

    engine.submit(flood)
    eventually(lambda: replies.seen)
    assert [type(reply) for reply in replies.seen] == [BusyError, BusyError]


def test_a_request_without_a_reply(engine, start_node, join, eventually) -> None:
    node = start_node(lambda request: None)
    join(node.listener)
    told = []

    class Task:
        def step(self, now):
            if not told and engine.tell(1, partial(PRODUCE, acks=0), (b"batch",)):
                told.append(now)

        def cluster_changed(self): ...

        def closed(self, error): ...

    attach(engine, Task())
    eventually(lambda: node.requests and told)
    assert len(told) == len(node.requests) == 1


def test_a_reply_that_cannot_be_read_fails_its_request(engine, start_node, join) -> None:
    join(start_node(lambda request: [199, request.request_id, 1]).listener)
    with pytest.raises(MalformedRequestError, match="not a message of this protocol"):
        engine.call(1, Ping, timeout_s=PATIENCE_S)


def test_a_node_whose_address_is_none_hurts_nobody_else(engine, start_node, join) -> None:
    join(start_node(pong).listener)
    for nonsense in ("tcp://no address", "nonsense", "tcp://h:port", "tcp://127.0.0.1"):
        join(Listener(nonsense), node_id=2)
        with pytest.raises(ConnectionFailedError):
            engine.call(2, Ping, timeout_s=0.2)
    assert isinstance(engine.call(1, Ping, timeout_s=PATIENCE_S)[0], Pong)


def test_a_node_cannot_answer_for_another(engine, start_node, join, eventually) -> None:
    honest = start_node(lambda request: None)
    join(honest.listener)
    replies = Replies()
    engine.submit(lambda: engine.request(1, Ping, on_reply=replies))
    eventually(lambda: honest.requests)
    stolen = honest.requests[0].request_id
    join(start_node(lambda request: Pong(stolen)).listener, node_id=2)
    with pytest.raises(TimedOutError):
        engine.call(2, Ping, timeout_s=0.1)
    assert replies.seen == []


def test_a_request_that_cannot_be_encoded_hurts_its_caller_only(engine) -> None:
    with pytest.raises(TypeError):
        engine.call(-1, lambda request_id: Ping(object()), timeout_s=1)  # type: ignore[arg-type]
    assert isinstance(engine.call(-1, Ping, timeout_s=PATIENCE_S)[0], Pong)


def test_tasks_are_stepped_once_a_wake_up(engine, start_node, join, eventually) -> None:
    """A burst of replies costs one step, not one each."""
    gate = threading.Event()

    def answer(request):
        gate.wait(PATIENCE_S)
        return pong(request)

    node = start_node(answer)
    join(node.listener)

    class Task:
        steps = 0
        replies = 0

        def step(self, now):
            self.steps += 1

        def reply(self, reply, frames):
            assert not isinstance(reply, TailraceError)
            self.replies += 1

        def cluster_changed(self): ...

        def closed(self, error): ...

    task = Task()
    attach(engine, task)
    engine.submit(lambda: [engine.request(1, Ping, on_reply=task.reply) for _ in range(500)])
    eventually(lambda: node.requests)  # connected, so that all were sent
    all_sent = threading.Event()
    engine.submit(lambda: all_sent.wait(PATIENCE_S) and None)
    gate.set()
    eventually(lambda: len(node.requests) == 500)
    all_sent.set()
    eventually(lambda: task.replies == 500)
    assert task.steps < 400


def test_a_connection_that_takes_no_more_is_fed_as_it_drains(engine, start_node, join, eventually) -> None:
    gate = threading.Event()

    def answer(request):
        gate.wait(PATIENCE_S)
        return pong(request)

    join(start_node(answer).listener)
    engine.submit(lambda: engine.request(1, Ping, on_reply=Replies()))
    connections = engine._loop.connections
    eventually(lambda: 1 in connections.links and connections.links[1].ready)
    got = []

    def flood():
        for number in range(15_000):
            engine.request(
                1, Ping, (b"x" * 1_000,), on_reply=lambda reply, frames, n=number: got.append((n, reply))
            )

    engine.submit(flood)
    eventually(lambda: connections.links[1].unsent)
    gate.set()
    eventually(lambda: len(got) == 15_000)
    assert [number for number, _ in got] == list(range(15_000))
    assert {type(reply) for _, reply in got} == {Pong}
