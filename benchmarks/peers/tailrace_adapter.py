"""Tailrace for the harness that compares log brokers: one of its `adapters/`, where `peers.py` puts it.

Acknowledged means what it means by default: on disk, after an fsync.
"""

import json
import shutil
import sys
import time
from itertools import cycle
from pathlib import Path

from common import INFLIGHT_BYTES, Adapter, batch_for, chunks, spawn

READY_S = 30
NODE = "  - id: {}\n"


class Tailrace(Adapter):
    """`columns`: send_many and batches(); else send, a record at a time, and poll. `nodes`: how many."""

    durability = "LMDB, fsync before ack"
    max_size = 7 << 20

    def start(self, datadir):
        folder = Path(datadir)
        config, log = folder / "cluster.yaml", folder / "server.log"
        nodes = "".join(NODE.format(number + 1) for number in range(self.settings["nodes"]))
        config.write_text(f"nodes:\n{nodes}")
        ends_with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        command = [sys.executable, "-P", "-m", "tailrace", "up", config, "--port", "0", "--json"]
        self.procs.append(spawn([*ends_with_us, *command, "--data-dir", folder / "data"], log))
        self.conn = {"servers": self._ready(log)}

    def _ready(self, log):
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for line in log.read_text().splitlines():
                if line.startswith("{") and json.loads(line).get("event") == "ready":
                    return json.loads(line)["bootstrap_servers"]
            time.sleep(0.02)
        raise TimeoutError(f"not ready: {log.read_text()[-500:]}")

    def topic(self, name, partitions):
        from tailrace import Admin

        with Admin(self.conn["servers"]) as admin:
            admin.create_topic(name, partitions=partitions)

    def open_producer(self, topic, partitions, opts):
        from tailrace import Producer

        self.topic_name, self.partitions, self.opts = topic, partitions, opts
        self.producer = Producer(
            self.conn["servers"], buffer_memory=INFLIGHT_BYTES, linger_ms=0 if opts["paced"] else 5
        )
        self.producer.partitions_for(topic)

    def produce(self, msgs):
        topic, producer, turn = self.topic_name, self.producer, cycle(self.partitions)
        if self.settings["columns"] and not self.opts["paced"]:
            for chunk in chunks(msgs, batch_for(self.opts["size"], 10_000)):
                producer.send_many(topic, chunk, partition=next(turn))
        elif len(self.partitions) == 1:
            for value in msgs:
                producer.send(topic, value)
        else:
            for value in msgs:
                producer.send(topic, value, partition=next(turn))
        producer.flush()

    def open_consumer(self, topic, partitions, opts):
        from tailrace import Consumer, TopicPartition

        self.consumer = Consumer(bootstrap_servers=self.conn["servers"], auto_offset_reset="earliest")
        self.consumer.assign([TopicPartition(topic, partition) for partition in partitions])
        self.opts = opts

    def consume(self, n, sink):
        got = 0
        if self.settings["columns"] and not self.opts["paced"]:
            for batch in self.consumer.batches():
                sink(batch.values)
                got += len(batch)
                if got >= n:
                    return
        while got < n:
            for records in self.consumer.poll(timeout_ms=1000, max_records=1000).values():
                sink([record.value for record in records])
                got += len(records)


def _make(client, **settings):
    def make():
        adapter = Tailrace(**settings)
        adapter.client = client
        return adapter

    return make


PEERS = {
    "tailrace": _make("send_many of lists of up to 10,000 or 1 MiB; batches()", columns=True, nodes=1),
    "tailrace-records": _make("one send() a message; poll(max_records=1000)", columns=False, nodes=1),
    "tailrace-2-nodes": _make("send_many; batches(); two nodes", columns=True, nodes=2),
}
