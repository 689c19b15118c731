"""Power loss at any moment: what was acknowledged is there, and what is there is whole.

A node writes batches of mixed sizes under retention while every write, sync and reply is recorded.
The power then fails at thousands of places of the recording, and what the disk may hold at each is
opened as a node would open it.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tailrace.client.admin import Admin
from tailrace.client.engine import Engine
from tailrace.node.storage.environment import Storage
from tailrace.protocol import columns
from tailrace.protocol.batch import parse_header
from tailrace.protocol.limits import KIB, MIB
from tailrace.protocol.messages import Produce, Produced, ProduceEntry

from ..patience import PATIENCE_S
from . import recording
from .cluster import Served, start_node
from .power_loss import Disk, crash_points
from .recording import Event, Kind

PARTITIONS = 3
RETENTION_BYTES = 256 * KIB
QUOTA_BYTES = 64 * MIB
RESERVE_BYTES = 2 * MIB
IN_FLIGHT = 8
SIZES = (60, 700, 2_000, 4_100, 9_000, 40_000, 130_000)
"""Bytes of payload in a batch: below and just over a page, and well over it."""
STATES = int(os.environ.get("TAILRACE_CRASH_STATES", "2000"))
SEED = int(os.environ.get("TAILRACE_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


class Sent(NamedTuple):
    """A batch of the workload."""

    partition: int
    crc: int


def write_batches(coordinator: str, count: int) -> tuple[bytes, dict[int, Sent]]:
    """Produce `count` batches, several in flight; (topic id, what was sent by request id)."""
    choice = random.Random(SEED)
    sent: dict[int, Sent] = {}
    acked = 0
    engine = Engine(coordinator, name="power loss")
    with Admin(coordinator) as admin:
        admin.create_topic("log", partitions=PARTITIONS, config={"retention_bytes": RETENTION_BYTES})
    engine.start()
    try:
        topic = engine.wait_for_topic("log", PATIENCE_S)

        def send(partition: int, batch: bytes) -> None:
            entry = ProduceEntry(topic.topic_id, partition, topic.partitions[partition].leader_epoch)

            def request(request_id: int) -> Produce:
                sent[request_id] = Sent(partition, parse_header(batch).crc)
                return Produce(request_id, entries=[entry])

            def on_reply(reply: object, frames: list[bytes]) -> None:
                nonlocal acked
                assert isinstance(reply, Produced), reply
                assert reply.results[0].error.code == 0, reply
                acked += 1

            engine.request(topic.partitions[partition].leader, request, (batch,), on_reply=on_reply)

        for number in range(count):
            payload = choice.randbytes(choice.choice(SIZES))
            batch = columns.encode([payload[:50], payload[50:]], timestamps=1_000 + number)
            engine.submit(lambda partition=number % PARTITIONS, batch=batch: send(partition, batch))
            wait_until(lambda number=number: acked > number - IN_FLIGHT)
        wait_until(lambda: acked == count)
    finally:
        engine.close()
    return topic.topic_id, sent


def wait_until(condition: object) -> None:
    """Returns when the condition holds; fails after half a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the node has stopped answering"
        time.sleep(0.0002)


def record(folder: Path, *flags: str, count: int) -> tuple[list[Event], bytes, dict[int, Sent]]:
    """A workload and the recording of its node."""
    folder.mkdir()
    env = recording.environment(record=folder / "record")
    sizes = {"quota_bytes": QUOTA_BYTES, "reserve_bytes": RESERVE_BYTES}
    with (
        Served("coordinator", folder / "coordinator") as coordinator,
        start_node(folder / "node", coordinator, *flags, env=env, **sizes),
    ):
        topic_id, sent = write_batches(coordinator.endpoint, count)
    return list(recording.events(folder / "record")), topic_id, sent


class Survivors:
    """Opens what a power loss left, as a node would, and compares it with what was acknowledged."""

    def __init__(self, folder: Path, like: Path, topic_id: bytes) -> None:
        self.folder = folder
        self.topic_id = topic_id
        folder.mkdir(mode=0o700)
        shutil.copy(like / "format", folder / "format")
        self.started = False

    def problems(self, image: bytes, acked: list[tuple[Sent, int]]) -> list[str]:
        """What is lost or corrupt; an image that does not open is all of it."""
        (self.folder / "lock.mdb").unlink(missing_ok=True)
        (self.folder / "data.mdb").write_bytes(image)
        try:
            storage = Storage.open(self.folder, quota_bytes=QUOTA_BYTES, reserve_bytes=RESERVE_BYTES)
        except Exception as error:  # noqa: BLE001 - whatever stops a node from starting is a finding
            return [f"does not open: {error!r}"]
        try:
            return [*storage.verify().problems, *self._lost(storage, acked)]
        except Exception as error:  # noqa: BLE001 - the same for reading
            return [f"does not read: {error!r}"]
        finally:
            storage.close(clean=False)

    def _lost(self, storage: Storage, acked: list[tuple[Sent, int]]) -> Iterator[str]:
        stored: dict[tuple[int, int], int] = {}
        starts: dict[int, int] = {}
        for (topic_id, partition), log in storage.logs.items():
            assert topic_id == self.topic_id
            starts[partition] = log.log_start_offset
            offset = log.log_start_offset
            while batches := storage.read(log, offset, 64 * MIB, log.log_end_offset, bytes):
                for batch in batches:
                    header = parse_header(batch)
                    stored[partition, header.base_offset] = header.crc
                    offset = header.last_offset + 1
            if log.log_start_offset and log.size_bytes < RETENTION_BYTES:
                yield f"partition {partition}: retention left {log.size_bytes} bytes, fewer than it may"
        for batch, base_offset in acked:
            if base_offset < starts.get(batch.partition, 0):
                continue
            if stored.get((batch.partition, base_offset)) != batch.crc:
                yield f"partition {batch.partition}: the acknowledged batch at {base_offset} is lost"


def replay(
    folder: Path, recorded: list[Event], topic_id: bytes, sent: dict[int, Sent], states: int, bare_states: int
) -> list[str]:
    """Fail the power at `states` places, and at `bare_states` acknowledgements with nothing left unsynced.

    A finding for each that lost or broke something.
    """
    choice = random.Random(SEED)
    acks = recording.acknowledgements(recorded)
    first_ack = min(acks)
    points = [first_ack + at for at in crash_points(recorded[first_ack:], states, choice)]
    # The moment of an acknowledgement with nothing that was not synced is the hardest test of it.
    bare = set(choice.sample(sorted(acks), min(len(acks), bare_states)))
    todo = sorted([(at, True) for at in points] + [(at, False) for at in bare], reverse=True)
    survivors = Survivors(folder / "survivors", folder / "node", topic_id)
    disk = Disk()
    acked: list[tuple[Sent, int]] = []
    findings: list[str] = []
    for index, event in enumerate(recorded):
        disk.apply(event)
        acked += ((sent[reply.request_id], reply.results[0].base_offset) for reply in acks.get(index, ()))
        while todo and todo[-1][0] == index:
            _, kept = todo.pop()
            for problem in survivors.problems(disk.crash(choice if kept else None), acked):
                findings.append(f"after event {index} ({event.kind.name}, {len(acked)} acked): {problem}")
                break
    assert len(acked) == len(sent), "an acknowledgement of the workload is not in the recording"
    return findings


@pytest.mark.timeout(600)
def test_power_loss_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    recorded, topic_id, sent = record(tmp_path / "run", count=600)
    findings = replay(tmp_path / "run", recorded, topic_id, sent, STATES, STATES // 4)
    assert not findings, f"seed {SEED}: {len(findings)} of {STATES} states: {findings[:5]}"
    assert {event.kind for event in recorded} >= {Kind.WRITE_BEGIN, Kind.SYNC_END, Kind.SEND}


def test_the_replay_finds_a_node_that_does_not_sync(tmp_path: Path) -> None:
    recorded, topic_id, sent = record(tmp_path / "run", "--no-sync", count=100)
    # Only with nothing left: LMDB may crash on a file of random sectors, which no node that syncs has.
    replies = len(recording.acknowledgements(recorded))  # one reply may acknowledge many batches
    findings = replay(tmp_path / "run", recorded, topic_id, sent, 0, replies)
    assert len(findings) == replies, f"seed {SEED}: only {len(findings)} of {replies}: {findings[:5]}"
