"""A node alone: raw clients push and fetch ready-made batches over ipc.

    python benchmarks/node.py [--seconds 3] [--dir FOLDER]

Prints the rates of one producer process with 32 batches of 1,000 x 100 B in flight (fsync before
every ack), of one fetching process, and the latency of a single small batch at 1,000 a second beside
that of the bare commit in the same folder.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arguments import amount

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.node.config import NodeConfig
from tailrace.node.main import Node
from tailrace.node.storage.environment import Storage
from tailrace.node.storage.log_plan import Append
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.messages import CreateTopic, Fetch, FetchEntry, Produce, ProduceEntry
from tailrace.protocol.wire import decode_reply
from tailrace.protocol.wire import encode as encode_message
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller

RECORDS = 1_000
IN_FLIGHT = 32
QUOTA_BYTES = 8 * 1024**3


class Client:
    """One connection of the bare protocol."""

    def __init__(self, endpoint: str) -> None:
        self.context = new_context()
        self.connection = Connection(self.context, endpoint)
        self.poller = Poller()
        self.poller.add(self.connection)
        self.ids = itertools.count(1)
        while self.connection.update() is not ConnectionState.READY:
            self.poller.poll(1)

    def send(self, message: Any, frames: Any = ()) -> None:
        assert self.connection.send(encode_message(message), frames)

    def receive(self) -> tuple[Any, list[bytes]]:
        while (received := self.connection.receive()) is None:
            self.poller.poll(None)
            self.connection.update()
        return decode_reply(received[0]), received[1]

    def close(self) -> None:
        self.connection.close()
        self.context.term()


def ipc(folder: Path, name: str) -> str:
    return f"ipc://{folder}/run/{name}.sock"


def run_part(folder: Path, part: str, ready: Any) -> None:
    """A child process: the coordinator or the node, until it is killed."""
    if part == "coordinator":
        config = CoordinatorConfig(
            data_dir=folder / part,
            tcp="tcp://127.0.0.1:0",
            ipc=ipc(folder, part),
            publisher_ipc=ipc(folder, "publisher"),
        )
        Coordinator(config).run(lambda _: ready.set())
    else:
        node = NodeConfig(
            node_id=1,
            data_dir=folder / part,
            coordinator=(ipc(folder, "coordinator"),),
            ipc=ipc(folder, part),
            quota_bytes=QUOTA_BYTES,
        )
        Node(node).run(lambda _: ready.set())


@contextmanager
def cluster(folder: Path) -> Iterator[int]:
    """A coordinator and a node; gives the node's process id."""
    spawn = multiprocessing.get_context("spawn")
    processes = []
    try:
        for part in ("coordinator", "node"):
            ready = spawn.Event()
            process = spawn.Process(target=run_part, args=(folder, part, ready), daemon=True)
            process.start()
            processes.append(process)
            assert ready.wait(10)
        assert processes[1].pid is not None
        yield processes[1].pid
    finally:
        for process in reversed(processes):
            process.kill()
            process.join()


def create_topic(folder: Path, name: str) -> ProduceEntry:
    client = Client(ipc(folder, "coordinator"))
    client.send(CreateTopic(1, name=name))
    reply, _ = client.receive()
    client.close()
    return ProduceEntry(reply.topic.topic_id, 0, reply.topic.partitions[0].leader_epoch)


def produce(folder: Path, entry: ProduceEntry, seconds: float, result: Any) -> None:
    """A child process: pipelined batches; puts (records, seconds)."""
    client = Client(ipc(folder, "node"))
    batch = encode([os.urandom(100)] * RECORDS, timestamps=time.time_ns() // 1_000_000)
    sent = done = 0
    start = time.perf_counter()
    while sent < IN_FLIGHT:
        sent += 1
        client.send(Produce(sent, entries=[entry]), [batch])
    while done < sent:
        reply, _ = client.receive()
        assert reply.results[0].error.code == 0, reply
        done += 1
        if time.perf_counter() - start < seconds:
            sent += 1
            client.send(Produce(sent, entries=[entry]), [batch])
    result.put((done * RECORDS, time.perf_counter() - start))
    client.close()


def fetch(folder: Path, entry: ProduceEntry, start_offset: int, end_offset: int, result: Any) -> None:
    """A child process: fetches of 1 MiB, one after the other; puts (records, seconds)."""
    client = Client(ipc(folder, "node"))
    offset = start_offset
    start = time.perf_counter()
    while offset < end_offset:
        place = FetchEntry(entry.topic_id, 0, entry.leader_epoch, offset, 1024 * 1024)
        client.send(Fetch(1, entries=[place], max_wait_ms=1_000))
        reply, frames = client.receive()
        assert reply.results[0].error.code == 0, reply
        offset += len(frames) * RECORDS
    result.put((offset - start_offset, time.perf_counter() - start))
    client.close()


def in_child(target: Any, *arguments: Any) -> Any:
    spawn = multiprocessing.get_context("spawn")
    result = spawn.Queue()
    process = spawn.Process(target=target, args=(*arguments, result))
    process.start()
    answer = result.get(timeout=120)
    process.join()
    return answer


def latencies(folder: Path, entry: ProduceEntry, seconds: float) -> tuple[list[float], list[float]]:
    """Microseconds of the bare commit and from produce to ack, in turns of 0.1 s, 1,000 a second."""
    client = Client(ipc(folder, "node"))
    storage = Storage.open(folder / "bare", quota_bytes=QUOTA_BYTES, reserve_bytes=0)
    key = (bytes(16), 0)
    storage.create([key])
    batch = encode([os.urandom(100)], timestamps=time.time_ns() // 1_000_000)

    def commit() -> None:
        copy = memoryview(bytearray(batch))
        storage.commit([Append(storage.logs[key], copy, parse_header(copy), time.time_ns() // 1_000_000)])

    def ask() -> None:
        client.send(Produce(1, entries=[entry]), [batch])
        client.receive()

    bare: list[float] = []
    acks: list[float] = []
    for _ in range(int(seconds * 10)):
        bare += timed(commit, 100)
        acks += timed(ask, 100)
    storage.close(clean=True)
    client.close()
    return bare, acks


def timed(action: Callable[[], None], count: int) -> list[float]:
    """Microseconds that each call takes, one call a millisecond."""
    taken = []
    next_at = time.perf_counter()
    for _ in range(count):
        while (left := next_at - time.perf_counter()) > 0:
            time.sleep(left)
        start = time.perf_counter()
        action()
        taken.append((time.perf_counter() - start) * 1e6)
        next_at += 0.001
    return taken


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show_rate(what: str, records: int, seconds: float, cpu: float) -> None:
    gigabytes = records * 100 / 1e9
    print(
        f"{what:<28} {records / seconds / 1e6:6.2f} M records/s  {gigabytes * 1e3 / seconds:6.0f} MB/s"
        f"  node CPU {cpu / gigabytes:.2f} s/GB"
    )


def show_latency(what: str, taken: list[float]) -> None:
    taken = sorted(taken)
    p50, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
    print(f"{what:<28} p50 {p50:6.0f} us  p99 {p99:6.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=amount, default=3.0)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the data goes (default: a temporary folder)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name, cluster(Path(name)) as pid:
        folder = Path(name)
        bulk, small = create_topic(folder, "bulk"), create_topic(folder, "small")
        cpu = cpu_seconds(pid)
        records, seconds = in_child(produce, folder, bulk, options.seconds)
        show_rate("produce, fsync, 32 in flight", records, seconds, cpu_seconds(pid) - cpu)
        hot = records - records % RECORDS - 500 * RECORDS
        for what, start, end in (("fetch, older", 0, hot), ("fetch, newest 50 MB", hot, hot + 500 * RECORDS)):
            cpu = cpu_seconds(pid)
            count, seconds = in_child(fetch, folder, bulk, start, end)
            show_rate(what, count, seconds, cpu_seconds(pid) - cpu)
        bare, acks = latencies(folder, small, options.seconds)
        show_latency("bare commit of 1 x 100 B", bare)
        show_latency("produce to ack of 1 x 100 B", acks)


if __name__ == "__main__":
    main()
