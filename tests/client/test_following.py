"""How a client finds the coordinator and keeps its copy of the cluster state."""

import re
import socket
import time
from contextlib import closing

import pytest

from tailrace.protocol.cluster import NodeChanged, TopicChanged, TopicRemoved
from tailrace.protocol.errors import (
    ConnectionFailedError,
    InvalidArgumentError,
    MalformedRequestError,
    UnknownTopicError,
)
from tailrace.protocol.limits import REFRESH_INTERVAL_MS_MIN
from tailrace.protocol.messages import Ping, Pong

from ..patience import BUSY_S, PATIENCE_S
from .in_thread import attach


def test_ready_after_the_first_snapshot(coordinator, start_engine, topic) -> None:
    coordinator.change(TopicChanged(topic("flights")))
    engine = start_engine(coordinator.address)
    engine.ready(PATIENCE_S)
    assert engine.topic("flights") == topic("flights")
    assert engine.cluster_id == "c"


def test_dead_address_is_named_with_its_cause_in_time(free_address, start_engine) -> None:
    engine = start_engine(free_address)
    started = time.monotonic()
    with pytest.raises(ConnectionFailedError, match="is `tailrace up` running") as caught:
        engine.ready(0.3)
    assert 0.3 <= time.monotonic() - started < 0.3 + BUSY_S
    assert f"{free_address}: connection refused" in str(caught.value)
    assert re.search(r"\(waited 3\d\d ms\)", str(caught.value))
    with pytest.raises(ConnectionFailedError, match=f"{free_address}: connection refused"):
        engine.call(-1, Ping, timeout_s=0.2)
    with pytest.raises(ConnectionFailedError, match=f"{free_address}: connection refused"):
        engine.wait_for_topic("flights", 0.2)


def test_an_address_that_accepts_and_says_nothing(start_engine) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        engine = start_engine(f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(ConnectionFailedError, match="accepts connections but does not answer"):
            engine.ready(0.2)


def test_an_unknown_host(start_engine) -> None:
    engine = start_engine("nowhere.invalid:7070")
    with pytest.raises(ConnectionFailedError, match=r"nowhere\.invalid:7070: no such host"):
        engine.ready(0.2)


def test_a_node_in_place_of_the_coordinator_is_noticed_at_once(start_node, start_engine) -> None:
    node = start_node(lambda request: None)
    engine = start_engine(node.address)
    started = time.monotonic()
    with pytest.raises(MalformedRequestError, match=f"{node.address} answered, but not as a coordinator"):
        engine.ready(PATIENCE_S)
    assert time.monotonic() - started < BUSY_S


def test_addresses_that_do_not_parse(start_engine) -> None:
    with pytest.raises(InvalidArgumentError, match="7070"):
        start_engine("7070")


def test_a_coordinator_that_comes_late(free_address, start_engine, start_coordinator, eventually) -> None:
    engine = start_engine(free_address)
    with pytest.raises(ConnectionFailedError):
        engine.ready(0.1)
    start_coordinator(tcp=f"tcp://{free_address}")
    engine.ready(PATIENCE_S)


def test_the_next_address_is_tried(free_address, coordinator, start_engine) -> None:
    engine = start_engine([free_address, coordinator.address])
    engine.ready(PATIENCE_S)
    (pong, _) = engine.call(-1, Ping, timeout_s=PATIENCE_S)
    (ping,) = (request for request in coordinator.requests if isinstance(request, Ping))
    assert pong == Pong(ping.request_id)


def test_all_dead_addresses_are_named(free_address, start_engine) -> None:
    engine = start_engine([free_address, "nowhere.invalid:1"])
    with pytest.raises(ConnectionFailedError, match=rf"{free_address}: .*; nowhere\.invalid:1: no such host"):
        engine.ready(0.1)


def test_updates_arrive_by_themselves(coordinator, start_engine, topic, eventually) -> None:
    """Also those that came before its subscription took effect."""
    engine = start_engine(coordinator.address)
    engine.ready(PATIENCE_S)
    coordinator.change(TopicChanged(topic("flights")))
    eventually(lambda: engine.topic("flights"))
    coordinator.change(TopicRemoved(topic("flights").topic_id))
    eventually(lambda: engine.topic("flights") is None)
    assert engine.cluster.version == 2


def test_a_lost_update_is_noticed_by_the_next_one(coordinator, engine, topic, eventually) -> None:
    coordinator.change(TopicChanged(topic("lost")), publish=False)
    coordinator.change(TopicChanged(topic("seen")))
    eventually(lambda: engine.topic("lost") and engine.topic("seen"))


def test_a_lost_update_is_noticed_by_the_next_beat(coordinator, engine, topic, eventually) -> None:
    coordinator.change(TopicChanged(topic("lost")), publish=False)
    asked = coordinator.snapshots_asked()
    coordinator.beat()
    eventually(lambda: engine.topic("lost"))
    assert coordinator.snapshots_asked() == asked + 1


def test_a_beat_that_promises_too_much_does_not_make_a_storm(coordinator, engine, eventually) -> None:
    asked = coordinator.snapshots_asked()
    started = time.monotonic()
    coordinator.state.version += 1
    coordinator.beat()
    coordinator.state.version -= 1
    time.sleep(0.3)  # what is counted is a rate
    eventually(lambda: coordinator.snapshots_asked() > asked)
    assert coordinator.snapshots_asked() - asked < 12 + 2 * (time.monotonic() - started)


def test_an_older_controller_is_not_believed(coordinator, start_engine, start_coordinator, topic, eventually):
    coordinator.state.controller_epoch = 5
    engine = start_engine(coordinator.address)
    engine.ready(PATIENCE_S)
    coordinator.state.controller_epoch = 4
    coordinator.change(TopicChanged(topic("ghost")))
    coordinator.state.controller_epoch = 5
    coordinator.change(TopicChanged(topic("real")))
    eventually(lambda: engine.topic("real"))
    assert engine.cluster.controller_epoch == 5


@pytest.mark.slow
def test_a_restarted_coordinator_is_followed_to_its_new_publisher(
    start_coordinator, start_engine, topic, eventually
) -> None:
    first = start_coordinator()
    first.change(TopicChanged(topic("old")))
    engine = start_engine(first.address)
    engine.ready(PATIENCE_S)
    first.stop()
    assert engine.topic("old"), "the last known state stays"
    second = start_coordinator(tcp=first.listener.tcp, epoch=2)
    assert second.publisher != first.publisher
    second.state.version = first.state.version
    second.change(TopicChanged(topic("new")))
    eventually(lambda: engine.topic("new"))
    second.change(TopicChanged(topic("newer")))
    eventually(lambda: engine.topic("newer"))


def test_calls_go_on_across_a_restart_of_the_coordinator(start_coordinator, start_engine) -> None:
    first = start_coordinator()
    engine = start_engine(first.address)
    engine.ready(PATIENCE_S)
    first.stop()
    with pytest.raises(ConnectionFailedError, match="connection refused"):
        engine.call(-1, Ping, timeout_s=0.1)
    start_coordinator(tcp=first.listener.tcp, epoch=2)
    assert isinstance(engine.call(-1, Ping, timeout_s=PATIENCE_S)[0], Pong)


def test_an_unknown_topic_is_asked_for_once_and_similar_ones_named(coordinator, engine, topic) -> None:
    coordinator.change(TopicChanged(topic("flights")), publish=False)
    started = time.monotonic()
    with pytest.raises(UnknownTopicError, match=r"topic 'flihgts' does not exist; did you mean 'flights'\?"):
        engine.wait_for_topic("flihgts", 30)
    assert time.monotonic() - started < BUSY_S
    assert engine.wait_for_topic("flights", 0) == topic("flights")


def test_a_topic_that_was_just_created_is_found(coordinator, engine, topic) -> None:
    coordinator.change(TopicChanged(topic("fresh")), publish=False)
    assert engine.wait_for_topic("fresh", PATIENCE_S) == topic("fresh")


def test_refreshes_are_bounded(coordinator, engine, eventually) -> None:
    asked = coordinator.snapshots_asked()
    started = time.monotonic()
    while time.monotonic() - started < 0.1:
        engine.request_refresh()
    eventually(lambda: coordinator.snapshots_asked() > asked)
    most = (time.monotonic() - started) * 1_000 / REFRESH_INTERVAL_MS_MIN
    assert coordinator.snapshots_asked() - asked <= most + 5


def test_tasks_hear_of_changes(coordinator, engine, node, eventually) -> None:
    class Task:
        def __init__(self):
            self.seen = []

        def step(self, now):
            return None

        def cluster_changed(self):
            self.seen.append(engine.cluster.version)

        def closed(self, error):
            self.seen.append(-1 if error is None else -2)

    task = Task()
    attach(engine, task)
    coordinator.change(NodeChanged(node(1, coordinator.listener)))
    eventually(lambda: task.seen == [1])
    engine.close()
    assert task.seen == [1, -1]


def test_without_beats_a_client_subscribes_anew(
    coordinator, start_engine, topic, eventually, monkeypatch
) -> None:
    monkeypatch.setattr("tailrace.client.follower.BEAT_SILENCE_MS_MAX", 50)
    engine = start_engine(coordinator.address)
    engine.ready(PATIENCE_S)
    asked = coordinator.snapshots_asked()
    coordinator.change(TopicChanged(topic("flights")), publish=False)
    eventually(lambda: coordinator.snapshots_asked() > asked + 2)
    assert engine.topic("flights")


def test_what_cannot_be_read_is_made_up_for_by_a_snapshot(coordinator, engine, topic, eventually) -> None:
    coordinator.change(TopicChanged(topic("flights")), publish=False)
    coordinator.publish([1, 2, 3])
    eventually(lambda: engine.topic("flights"))
    coordinator.change(TopicChanged(topic("more")))
    eventually(lambda: engine.topic("more"))


@pytest.mark.slow
def test_another_cluster_at_the_same_address(
    start_coordinator, start_engine, topic, eventually, caplog
) -> None:
    first = start_coordinator(epoch=7, cluster_id="old")
    first.change(TopicChanged(topic("old")))
    engine = start_engine(first.address)
    engine.ready(PATIENCE_S)
    first.stop()
    second = start_coordinator(tcp=first.listener.tcp, epoch=1, cluster_id="new")
    second.change(TopicChanged(topic("new")))
    eventually(lambda: engine.topic("new"))
    assert engine.topic("old") is None
    assert engine.cluster_id == "new"
    assert "is cluster new's now, was old's" in caplog.text
