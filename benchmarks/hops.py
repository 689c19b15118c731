"""What a record's way costs without Tailrace: three processes pass 160 bytes on, 1,000 times a second.

    python benchmarks/hops.py [--seconds 3] [--repeat 3] [--json]

Producer, node and consumer have one thread each, nothing but `send` and `recv`, and keep nothing: once over
ZeroMQ's DEALER and ROUTER sockets, as Tailrace does, and once over Unix sockets, the least that a machine
asks for. `benchmarks/latency.py --ephemeral` is the same way with Tailrace on it.
"""

import argparse
import json
import multiprocessing
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import zmq
from arguments import amount, positive

STAMP = struct.Struct("<q")
TAIL = bytes(152)
RATE = 1_000
WARM_UP = 500
HELLO = b"hello"
Peer = tuple[Callable[[bytes], Any], Callable[[], bytes]]
"""How it is sent to, and received from."""


@contextmanager
def zmq_node(endpoint: str) -> Iterator[Callable[[], Peer]]:
    """Yields what waits for the next peer, which says hello."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{endpoint}")

        def accept() -> Peer:
            peer, _ = router.recv_multipart()
            return lambda data: router.send_multipart([peer, data]), lambda: router.recv_multipart()[1]

        yield accept


@contextmanager
def zmq_client(endpoint: str) -> Iterator[Peer]:
    """A connection to the node."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(f"ipc://{endpoint}")
        yield dealer.send, dealer.recv


@contextmanager
def unix_node(endpoint: str) -> Iterator[Callable[[], Peer]]:
    """Yields what waits for the next peer, which says hello."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(endpoint)
        listener.listen()

        def accept() -> Peer:
            peer, _ = listener.accept()
            receive = partial(peer.recv, 4096)
            receive()
            return peer.send, receive

        yield accept


@contextmanager
def unix_client(endpoint: str) -> Iterator[Peer]:
    """A connection to the node."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(endpoint)
        yield peer.send, partial(peer.recv, 4096)


KINDS = {"zeromq": (zmq_node, zmq_client), "unix sockets": (unix_node, unix_client)}


def node(kind: str, endpoint: str, count: int, bound: Any) -> None:
    """Pass on to the first peer what comes from the second."""
    with KINDS[kind][0](endpoint) as accept:
        bound.set()
        to_consumer, from_consumer = accept()
        to_consumer(HELLO)
        to_producer, from_producer = accept()
        to_producer(HELLO)
        for _ in range(count):
            to_consumer(from_producer())
        from_consumer()  # it has all


def produce(kind: str, endpoint: str, count: int) -> None:
    """RATE messages a second, each with the time at which it was sent."""
    with KINDS[kind][1](endpoint) as (send, receive):
        send(HELLO)
        receive()
        start = time.monotonic_ns()
        for number in range(count):
            wait = start + number * 1_000_000_000 // RATE - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            send(STAMP.pack(time.monotonic_ns()) + TAIL)


def consume(kind: str, endpoint: str, count: int, ready: Any, result: Any) -> None:
    """Microseconds on the way, of each message."""
    took: list[float] = []
    with KINDS[kind][1](endpoint) as (send, receive):
        send(HELLO)
        receive()
        ready.set()
        for _ in range(count):
            data = receive()
            took.append((time.monotonic_ns() - STAMP.unpack_from(data)[0]) / 1_000)
        send(HELLO)
    result.put(took)


def measure(kind: str, seconds: float) -> float:
    """The median of one round."""
    spawn = multiprocessing.get_context("spawn")
    bound, ready, result = spawn.Event(), spawn.Event(), spawn.Queue()
    count = WARM_UP + int(RATE * seconds)
    with tempfile.TemporaryDirectory() as folder:
        where = (kind, f"{folder}/node", count)
        relay = spawn.Process(target=node, args=(*where, bound))
        reader = spawn.Process(target=consume, args=(*where, ready, result))
        writer = spawn.Process(target=produce, args=where)
        relay.start()
        bound.wait()
        reader.start()
        ready.wait()
        writer.start()
        took: list[float] = result.get()
        for process in (writer, reader, relay):
            process.join()
    return statistics.median(took[WARM_UP:])


def main() -> None:
    """Print the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=amount, default=3)
    parser.add_argument("--repeat", type=positive, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {
        kind: statistics.median(measure(kind, options.seconds) for _ in range(options.repeat))
        for kind in KINDS
    }
    if options.json:
        print(json.dumps(figures))
        return
    for kind, median_us in figures.items():
        print(f"{kind:14}{median_us:6.0f} us")


if __name__ == "__main__":
    main()
