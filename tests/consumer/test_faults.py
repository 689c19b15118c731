"""Nodes and the coordinator die and come back under a consumer; retention deletes what it has not read."""

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tailrace.consumer import Consumer
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import LeaderNotAvailableError, OffsetOutOfRangeError, TailraceError
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S, wait_until
from .conftest import Feeder, at, values_of


@pytest.fixture
def fragile() -> Iterator[Cluster]:
    """A cluster that a test may break."""
    with Cluster(session_timeout_ms=1_000, retention_check_ms=50) as cluster:
        yield cluster


@pytest.fixture
def fragile_feeder(fragile: Cluster) -> Iterator[Feeder]:
    feeder = Feeder(fragile)
    yield feeder
    feeder.close()


def test_a_node_that_was_killed_and_started_is_read_on(fragile: Cluster, fragile_feeder: Feeder) -> None:
    topic = fragile_feeder.topic(partitions=2)
    with Consumer(
        topic, bootstrap_servers=fragile.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        for round_ in range(3):
            for partition in range(2):
                fragile_feeder.send(topic, b"%d-%d" % (round_, partition), partition=partition)
            assert sorted(values_of(consumer, 2)) == [b"%d-0" % round_, b"%d-1" % round_]
            fragile.kill(1)
            assert consumer.poll(50) == {}
            fragile.start(1)
        assert consumer.metrics()["fetch_errors"] > 0


def test_a_consumer_that_waits_gets_what_is_sent_after_the_restart(
    fragile: Cluster, fragile_feeder: Feeder, caplog: pytest.LogCaptureFixture
) -> None:
    topic = fragile_feeder.topic()
    with (
        caplog.at_level(logging.INFO, logger="tailrace.consumer"),
        Consumer(topic, bootstrap_servers=fragile.bootstrap_servers) as consumer,
    ):
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(values_of(consumer, 1)))
        reader.start()
        fragile.kill(1)
        fragile.start(1)
        fragile_feeder.send(topic, b"after")
        reader.join(PATIENCE_S)
    assert got == [b"after"]
    # Told when it begins and when it is over, not at each attempt.
    levels = [record.levelname for record in caplog.records]
    assert levels[:2] == levels[-2:] == ["WARNING", "INFO"]
    assert all(before != after for before, after in itertools.pairwise(levels))
    assert "fetching from node 1: " in caplog.text
    assert "trying again" in caplog.text


def test_reading_goes_on_without_the_coordinator(fragile: Cluster, fragile_feeder: Feeder) -> None:
    topic = fragile_feeder.topic()
    with Consumer(topic, bootstrap_servers=fragile.bootstrap_servers) as consumer:
        fragile.kill_coordinator()
        fragile_feeder.send(topic, b"on")
        assert values_of(consumer, 1) == [b"on"]
        fragile.start_coordinator()
        fragile_feeder.send(topic, b"and on")
        assert values_of(consumer, 1) == [b"and on"]


def test_what_needs_a_dead_node_fails_within_its_time_out(fragile: Cluster, fragile_feeder: Feeder) -> None:
    topic = fragile_feeder.topic()
    consumer = Consumer(topic, bootstrap_servers=fragile.bootstrap_servers)
    fragile.kill(1)
    for call in (consumer.seek_to_end, consumer.lag, partial(consumer.end_offsets, [at(topic)])):
        started = time.monotonic()
        with pytest.raises(TailraceError, match=r"node 1|leader") as caught:
            call(timeout_ms=300)
        assert caught.value.retriable
        assert time.monotonic() - started < 0.3 + BUSY_S
    assert consumer.poll(100) == {}
    consumer.close()


@pytest.fixture
def halves() -> Iterator[tuple[Cluster, Feeder, str]]:
    """Two nodes, and a topic with a partition on each; node 2 leads the second."""
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster, closing(Feeder(cluster)) as feeder:
        topic = feeder.topic(partitions=2)
        info = feeder.engine.wait_for_topic(topic, PATIENCE_S)
        lower = min((0, 1), key=lambda partition: info.partitions[partition].leader)
        assert lower == 0
        yield cluster, feeder, topic


def lose(cluster: Cluster, feeder: Feeder, topic: str, node: int) -> None:
    """Kill a node; returns when the cluster knows."""
    cluster.kill(node)
    deadline = time.monotonic() + PATIENCE_S
    while all(
        info.leader != NO_LEADER for info in feeder.engine.wait_for_topic(topic, PATIENCE_S).partitions
    ):
        assert time.monotonic() < deadline
        feeder.engine.refresh(PATIENCE_S)
        feeder.engine.pause(0.02)


def test_what_has_a_leader_is_read_at_once_and_the_rest_when_its_node_is_back(
    halves: tuple[Cluster, Feeder, str], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, feeder, topic = halves
    for partition in range(2):
        feeder.send(topic, b"%d" % partition, partition=partition)
    lose(cluster, feeder, topic, 2)
    started = time.monotonic()
    with Consumer(
        topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        assert time.monotonic() - started < BUSY_S
        assert values_of(consumer, 1) == [b"0"]
        warnings = [record.message for record in caplog.records if record.name.endswith("look_up")]
        assert len(warnings) == 1
        assert f"{topic}-1: there is no live leader while node 2 is down: start it" in warnings[0]
        cluster.start(2)
        feeder.send(topic, b"new", partition=1)
        assert values_of(consumer, 2) == [b"1", b"new"]


@pytest.mark.parametrize("kept", ["nowhere", "in a folder", "by a group"])
def test_where_the_end_is_to_be_told_by_a_dead_node_nothing_is_missed_and_nobody_waits(
    halves: tuple[Cluster, Feeder, str], tmp_path: Path, kept: str
) -> None:
    cluster, feeder, topic = halves
    options: dict[str, Any] = {"in a folder": {"offset_store": tmp_path}, "by a group": {"group_id": "g"}}
    start = partial(
        Consumer,
        topic,
        bootstrap_servers=cluster.bootstrap_servers,
        auto_commit_interval_ms=50,
        **options.get(kept, {}),
    )
    feeder.send(topic, b"old", b"older", partition=1)
    lose(cluster, feeder, topic, 2)
    started = time.monotonic()
    with start() as consumer:
        assert time.monotonic() - started < BUSY_S
        feeder.send(topic, b"beside")
        assert values_of(consumer, 1) == [b"beside"]
        with pytest.raises(
            LeaderNotAvailableError, match=rf"{topic}-1: .* node 2 is down: start it\. .* or seek"
        ):
            consumer.position(at(topic, 1))
        cluster.start(2)
        if kept != "nowhere":
            # A consumer that is killed now goes on here, though it has read nothing.
            wait_until(
                lambda: not consumer.poll(20) and consumer.committed(at(topic, 1)) == 2, "it is stored"
            )
        feeder.send(topic, b"first", partition=1)
        feeder.send(topic, b"second", partition=1)
        assert values_of(consumer, 2) == [b"first", b"second"]
        assert consumer.position(at(topic, 1)) == 4


def test_stored_offsets_need_no_leader_whatever_the_policy(
    halves: tuple[Cluster, Feeder, str], tmp_path: Path
) -> None:
    cluster, feeder, topic = halves
    feeder.send(topic, b"before", partition=1)
    start = partial(Consumer, topic, bootstrap_servers=cluster.bootstrap_servers, offset_store=tmp_path)
    start().close()
    lose(cluster, feeder, topic, 2)
    with start() as consumer:
        assert consumer.position(at(topic, 1)) == 1
        cluster.start(2)
        feeder.send(topic, b"after", partition=1)
        assert values_of(consumer, 1) == [b"after"]


def test_without_a_policy_and_a_leader_it_is_said_in_turn(halves: tuple[Cluster, Feeder, str]) -> None:
    cluster, feeder, topic = halves
    lose(cluster, feeder, topic, 2)
    with Consumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="none") as consumer:
        consumer.assign([at(topic, 1)])
        with pytest.raises(
            OffsetOutOfRangeError, match=f"{topic}-1: no offset is stored, and no live leader"
        ):
            consumer.poll(PATIENCE_S * 1_000)
        consumer.seek(at(topic, 1), 0)
        cluster.start(2)
        feeder.send(topic, b"x", partition=1)
        assert values_of(consumer, 1) == [b"x"]


def test_records_that_retention_deleted_are_passed_over(fragile: Cluster, fragile_feeder: Feeder) -> None:
    """The consumer is paused at the start while retention deletes; `earliest` finds what is left."""
    topic = "short"
    fragile_feeder.admin.create_topic(topic, config={"retention_bytes": 200_000})
    fragile_feeder.send(topic, b"first")
    with Consumer(
        topic, bootstrap_servers=fragile.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        consumer.pause(at(topic))
        for number in range(40):
            fragile_feeder.send(topic, b"%d " % number * 5_000)
        deadline = time.monotonic() + PATIENCE_S
        while consumer.beginning_offsets([at(topic)])[at(topic)] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        consumer.seek(at(topic), 0)
        consumer.resume(at(topic))
        offsets = []
        while not offsets or offsets[-1] < 40:
            offsets += [record.offset for records in consumer.poll(5_000).values() for record in records]
        start = offsets[0]
        assert start > 0
        assert all(later == before + 1 for before, later in itertools.pairwise(offsets))
        assert consumer.metrics()["offset_resets"] == 1


def test_three_nodes_that_die_in_turn_lose_nothing() -> None:
    with (
        Cluster(nodes=3, session_timeout_ms=1_000) as cluster,
        closing(Feeder(cluster)) as feeder,
        Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer,
    ):
        topic = feeder.topic(partitions=6)
        consumer.subscribe(topic)
        found: list[list[int]] = [[] for _ in range(6)]

        def read(timeout_ms: float) -> int:
            for name, records in consumer.poll(timeout_ms).items():
                found[name.partition] += [int(record.value) for record in records]
            return sum(map(len, found))

        for round_, node_id in enumerate(cluster.node_ids):
            for partition in range(6):
                feeder.send_numbers(topic, range(round_ * 20, round_ * 20 + 20), partition=partition)
            cluster.kill(node_id)
            read(20)
            cluster.start(node_id)
            read(20)
        deadline = time.monotonic() + PATIENCE_S
        while read(1_000) < 360:
            assert time.monotonic() < deadline
        assert found == [list(range(60))] * 6
