"""What is published reaches those who subscribed before, also after a restart of the publisher."""

from collections.abc import Callable
from typing import Any

import zmq

from tailrace.transport.context import Context
from tailrace.transport.publisher import Publisher, Subscriber

Wait = Callable[..., None]
Own = Callable[..., Any]
LOOPBACK = "tcp://127.0.0.1:0"


def subscribed(publisher: Publisher, *subscribers: Subscriber) -> None:
    """Publish until every subscriber has heard, then read what is left: a late one misses the start."""
    silent = set(subscribers)
    while silent:
        publisher.send(b"?")
        silent = {one for one in silent if one.receive() is None}
    publisher.send(b"!")
    for one in subscribers:
        while one.receive() != b"!":
            pass


def test_everybody_hears_everything_in_order(
    context: Context, own: Own, tmp_path: object, wait: Wait
) -> None:
    publisher = own(Publisher(context, tcp=LOOPBACK, ipc=f"ipc://{tmp_path}/publisher.sock"))
    listener = publisher.listener
    subscribers = [own(Subscriber(context, endpoint)) for endpoint in (listener.tcp, listener.ipc)]
    subscribed(publisher, *subscribers)
    sent = [b"%d" % number for number in range(500)]
    for data in sent:
        publisher.send(data)
    for subscriber in subscribers:
        got: list[bytes] = []
        wait(lambda got=got, it=subscriber: got.extend(iter(it.receive, None)) or len(got) == 500, subscriber)
        assert got == sent
        assert subscriber.receive() is None


def test_who_has_joined_hears_what_is_sent_next(
    context: Context, own: Own, tmp_path: object, wait: Wait
) -> None:
    publisher = own(Publisher(context, tcp=LOOPBACK, ipc=f"ipc://{tmp_path}/publisher.sock"))
    assert not publisher.joined()
    listener = publisher.listener
    for number, endpoint in enumerate((listener.tcp, listener.ipc, listener.tcp)):
        subscriber = own(Subscriber(context, endpoint))
        wait(publisher.joined, publisher)
        assert not publisher.joined()
        publisher.send(b"%d" % number)
        got: list[bytes] = []
        wait(lambda got=got, it=subscriber: got.extend(iter(it.receive, None)) or got, subscriber)
        assert got == [b"%d" % number]


def test_a_subscriber_follows_a_publisher_that_restarts(context: Context, own: Own, again: Own) -> None:
    first = own(Publisher(context, tcp=LOOPBACK))
    subscriber = own(Subscriber(context, first.listener.tcp))
    subscribed(first, subscriber)
    endpoint = first.listener.tcp
    first.close()
    subscribed(again(lambda: Publisher(context, tcp=endpoint)), subscriber)


def test_a_message_of_many_frames_is_skipped(context: Context, own: Own, wait: Wait) -> None:
    with context.socket(zmq.PUB) as stranger:
        stranger.bind("tcp://127.0.0.1:0")
        subscriber = own(Subscriber(context, stranger.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()))
        got: list[bytes] = []

        def heard() -> list[bytes]:
            stranger.send_multipart([b"a", b"b", b"c"])
            stranger.send(b"whole")
            got.extend(iter(subscriber.receive, None))
            return got

        while not heard():
            pass
        assert set(got) == {b"whole"}
