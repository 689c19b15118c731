"""Bad input, as users meet it: what is refused, and where that is tested.

| what | tests |
|---|---|
| oversize records | producer/test_bad_input, cli/test_commands::test_what_cannot_be_produced |
| oversize frames and headers on the wire | transport/test_server, node/test_hostile |
| wrong types | producer/test_bad_input, consumer/test_bad_input, client/test_admin, and here |
| unknown topics, with similar names | producer/, consumer/test_bad_input, client/test_admin, cli |
| topics deleted and created anew | test_recreated_topic |
| negative offsets | consumer/test_bad_input, consumer/test_offset_store, node/test_node |
| out-of-range seeks | consumer/test_positions, consumer/test_offset_store, and here |
| closed clients | test_closed_clients |
| dead addresses | test_dead_addresses |
| a second process on a data folder | test_data_folders, cli/test_up, consumer/test_offset_store |
| a data folder of a newer format | test_data_folders, node/storage/test_folder, coordinator/store |
| Ctrl-C | test_ctrl_c, consumer/test_interrupts, producer/test_life, cli/test_commands, cli/test_up |
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.protocol.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    TailraceError,
    UnknownTopicError,
)
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import BUSY_S, PATIENCE_S, wait_until

PLACE = TopicPartition("t", 0)
FOR_EVER = (float("inf"), 10**30)
RETAINED_BYTES = 200_000
BATCH_BYTES = 20_000

# ------------------------------------------------------------------------- types


@pytest.mark.parametrize("client", [Producer, Admin, lambda servers: Consumer(bootstrap_servers=servers)])
@pytest.mark.parametrize(
    "servers", [None, 5, b"127.0.0.1:7070", [5], {"host": 1}, "", [], "host", "host:port"]
)
def test_addresses_that_are_none(client: Callable[[Any], object], servers: object) -> None:
    with pytest.raises(InvalidArgumentError):
        client(servers)


@pytest.mark.parametrize("timeout_ms", [0, -1, 1.5, "5", None, True, float("nan")])
def test_the_time_out_of_an_admin(timeout_ms: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"request_timeout_ms is .*; it is a whole number from 1"):
        Admin(request_timeout_ms=timeout_ms)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a: a.create_topic(None), InvalidTopicError, "text, not None"),
        (lambda a: a.create_topic("\ud800"), InvalidTopicError, "text, not"),
        (lambda a: a.create_topic("t", 1, config=5), InvalidArgumentError, "config is int 5; it is a dict"),
        (lambda a: a.create_topic("t", 1, config=["retention_ms"]), InvalidArgumentError, "config is list"),
        (
            lambda a: a.create_topic("t", 1, config={"retention_ms": 1.5}),
            InvalidConfigError,
            "must be a whole number or",
        ),
        (lambda a: a.delete_topic(b"t"), InvalidTopicError, "text, not b't'"),
        (lambda a: a.describe_topic(5), InvalidTopicError, "text, not 5"),
        (
            lambda a: a.describe_topics("flights"),
            InvalidArgumentError,
            "names is str 'flights'; it is a list",
        ),
        (lambda a: a.describe_topics(["t", ["u"]]), InvalidTopicError, r"text, not \['u'\]"),
        (lambda a: a.describe_logs(1), InvalidArgumentError, "node_ids is int 1; it is a list"),
        (lambda a: a.describe_logs(["1"]), InvalidArgumentError, "node_ids is '1'"),
        (lambda a: a.describe_logs([-1]), InvalidArgumentError, "node_ids is -1"),
        (lambda a: a.list_offsets([PLACE]), InvalidArgumentError, "timestamps is list .*; it is a dict"),
        (lambda a: a.list_offsets({"t": 0}), InvalidArgumentError, "'t' is no partition"),
        (lambda a: a.list_offsets({("t", "0"): 0}), InvalidArgumentError, "partition is '0'"),
        (lambda a: a.list_offsets({PLACE: None}), InvalidArgumentError, "timestamp is None"),
        (lambda a: a.list_offsets({PLACE: -3}), InvalidArgumentError, "timestamp is -3"),
        (lambda a: a.list_offsets({PLACE: 2**63}), InvalidArgumentError, "timestamp is 9223372036854775808"),
        (lambda a: a.ready(nodes=0), InvalidArgumentError, "nodes is 0; it is a whole number from 1"),
        (lambda a: a.ready("1"), InvalidArgumentError, "timeout_ms is '1'; it is a number of milliseconds"),
        (lambda a: a.list_topics(timeout_ms=-1), InvalidArgumentError, "timeout_ms is -1"),
        (lambda a: a.list_topics(timeout_ms=True), InvalidArgumentError, "timeout_ms is True"),
        (lambda a: a.list_topics(timeout_ms=float("nan")), InvalidArgumentError, "timeout_ms is nan"),
    ],
)
def test_arguments_of_an_admin(
    admin: Admin, call: Callable[[Admin], object], error: type[TailraceError], says: str
) -> None:
    with pytest.raises(error, match=says):
        call(admin)
    admin.list_topics()


def test_arguments_of_a_consumer(cluster: Cluster, topic: MakeTopic) -> None:
    calls: list[Callable[[Consumer], object]] = [
        lambda c: c.commit(5),  # type: ignore[arg-type]
        lambda c: c.commit("t"),  # type: ignore[arg-type]
        lambda c: c.offsets_for_times(None),  # type: ignore[arg-type]
        lambda c: c.offsets_for_times([PLACE]),  # type: ignore[arg-type]
        lambda c: c.partitions_for_topic([]),  # type: ignore[arg-type]
        lambda c: c.partitions_for_topic(""),
    ]
    with Consumer(topic(2), bootstrap_servers=cluster.bootstrap_servers) as consumer:
        for call in calls:
            with pytest.raises(InvalidArgumentError):
                call(consumer)
    with pytest.raises(InvalidArgumentError, match="client_id is 5"):
        Consumer(bootstrap_servers=cluster.bootstrap_servers, client_id=5)  # type: ignore[arg-type]


def test_arguments_of_a_delivery(cluster: Cluster, topic: MakeTopic) -> None:
    name = topic(2)
    with Producer(cluster.bootstrap_servers, linger_ms=60_000) as producer:
        one, many = producer.send(name, b"x"), producer.send_many(name, [b"x"])
        for delivery in (one, many):
            for timeout in ("1", -1, True, float("nan")):
                with pytest.raises(InvalidArgumentError, match="timeout is"):
                    delivery.result(timeout)
            for register in (delivery.add_callback, delivery.add_errback):
                with pytest.raises(InvalidArgumentError, match="'print' cannot be called back"):
                    register("print")


@pytest.mark.parametrize("for_ever", FOR_EVER)
def test_a_time_out_may_be_for_ever(
    cluster: Cluster, admin: Admin, topic: MakeTopic, for_ever: float
) -> None:
    name = topic(2)
    where = cluster.bootstrap_servers
    assert name in admin.list_topics(timeout_ms=for_ever)
    admin.create_topic(f"{name}-{for_ever:.0e}".replace("+", ""), timeout_ms=for_ever)
    with Producer(where, linger_ms=for_ever) as producer:
        delivery = producer.send(name, b"x")
        producer.flush(for_ever)
        assert delivery.result(for_ever).offset == 0
        producer.send(name, b"x")
        producer.close(for_ever)
    with Consumer(name, bootstrap_servers=where, auto_offset_reset="earliest") as consumer:
        assert consumer.poll(for_ever, max_records=1)
        assert next(consumer.batches(for_ever))
        assert consumer.lag(for_ever) == dict.fromkeys(consumer.assignment(), 0)
        with pytest.raises(UnknownTopicError):
            consumer.subscribe("unknown", timeout_ms=for_ever)


# ------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["", "a/b", "with space", ".", "..", "x" * 250, "é", "a\n", "\0"])
def test_names_that_no_topic_can_have(cluster: Cluster, admin: Admin, name: str) -> None:
    with pytest.raises(InvalidTopicError):
        admin.create_topic(name)
    started = time.monotonic()
    with Producer(cluster.bootstrap_servers) as producer, pytest.raises(UnknownTopicError):
        producer.send(name, b"x")
    with pytest.raises((UnknownTopicError, InvalidArgumentError)):
        Consumer(name, bootstrap_servers=cluster.bootstrap_servers)
    assert time.monotonic() - started < BUSY_S


# ----------------------------------------------------------------------- offsets


@pytest.fixture(scope="module")
def cut() -> Iterator[tuple[str, TopicPartition, int]]:
    """A cluster's address, and a partition whose first records retention has deleted; where it starts."""
    place = TopicPartition("cut", 0)
    with Cluster(retention_check_ms=50) as cluster, Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("cut", config={"retention_bytes": RETAINED_BYTES})
        with Producer(cluster.bootstrap_servers, batch_size=BATCH_BYTES) as producer:
            producer.send_many("cut", [b"%03d" % n * 1_000 for n in range(400)])

        def size() -> int:
            return sum(log.size_bytes for log in admin.describe_logs()[1].logs)

        wait_until(lambda: size() < RETAINED_BYTES + BATCH_BYTES, "no batch can be deleted any more")
        start = admin.list_offsets({place: Admin.EARLIEST})[place]
        assert start is not None
        assert 0 < start.offset < 400
        yield cluster.bootstrap_servers, place, start.offset


@pytest.mark.parametrize("offset", [0, 5_000])
@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
def test_a_seek_outside_of_the_log(cut: tuple[str, TopicPartition, int], offset: int, reset: Any) -> None:
    where, place, start = cut
    with Consumer(bootstrap_servers=where, auto_offset_reset=reset) as consumer:
        consumer.assign([place])
        consumer.seek(place, offset)
        if reset == "none":
            says = rf"cut-0: offset {offset} is out of range, the log starts at {start} and ends before 400"
            with pytest.raises(OffsetOutOfRangeError, match=says):
                consumer.poll(PATIENCE_S * 1_000)
        elif reset == "earliest":
            assert consumer.poll(PATIENCE_S * 1_000)[place][0].offset == start
        else:
            wait_until(
                lambda: consumer.poll(10) == {} and consumer.position(place) == 400, "it is at the end"
            )
