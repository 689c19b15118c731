"""Serializers by name, there and back, and what is never unpickled."""

import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy
import pandas
import pytest
from msgspec import json, msgpack

from tailrace import Admin, Consumer, Producer
from tailrace.client.serializers import deserializer_of, serializer_of
from tailrace.producer.arguments import serialized
from tailrace.protocol.errors import InvalidArgumentError, SerializationError
from tailrace.testing import Cluster

VALUES: dict[str, list[Any]] = {
    "json": [{"a": [1, 2.5, None, "ä"]}, [], "text", 7],
    "str": ["", "text", "日本"],
    "msgpack": [{"a": [1, b"\xff"]}, "text", b"", -1],
    "pickle": [{1, 2}, (1, "a"), complex(1, 2)],
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=1) as cluster:
        yield cluster


@pytest.mark.parametrize("name", VALUES)
def test_through_the_log(cluster: Cluster, name: str) -> None:
    servers = cluster.bootstrap_servers
    with Admin(servers) as admin:
        admin.create_topic(f"by-{name}")
    with Producer(servers, value_serializer=name, key_serializer=name) as producer:
        for value in VALUES[name]:
            producer.send(f"by-{name}", value, key=value)
        producer.send_many(f"by-{name}", [*VALUES[name], None])
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 20_000}
    with Consumer(
        f"by-{name}", bootstrap_servers=servers, value_deserializer=name, key_deserializer=name, **options
    ) as consumer:
        count = 2 * len(VALUES[name]) + 1
        records = [record for _, record in zip(range(count), consumer, strict=False)]
    assert [record.value for record in records] == [*VALUES[name], *VALUES[name], None]
    assert [record.key for record in records] == [*VALUES[name], *[None] * (len(VALUES[name]) + 1)]


@dataclass
class Price:
    amount: float


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, numpy.float64("nan")])
@pytest.mark.parametrize(
    "made",
    [
        lambda x: x,
        lambda x: [None, x],
        lambda x: {"a": {"b": (1, x)}},
        Price,
        lambda x: [Price(1.0), Price(x)],
    ],
)
def test_json_has_no_numbers_that_are_not_finite(made: Any, number: float) -> None:
    serialize = serializer_of("value_serializer", "json")
    with pytest.raises(SerializationError, match=r"value=.*JSON has no NaN and no infinity"):
        serialized("value", made(number), serialize)
    assert serialized("value", made(1.5), serialize) == json.encode(made(1.5))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ((1, {2}), [1, [2]]),
        ({1: None, b"a": "null"}, {"1": None, "YQ==": "null"}),
        (b"ab", "YWI="),
        (Decimal("1.10"), "1.10"),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_json_makes_of_other_kinds(value: Any, read: Any) -> None:
    serialize, deserialize = serializer_of("x", "json"), deserializer_of("x", "json")
    assert serialize is not None
    assert deserialize is not None
    assert deserialize(serialize(value) or b"") == read


def a(kind: type, *arguments: Any) -> Any:
    """Of a subclass."""
    return type(f"My{kind.__name__}", (kind,), {"__str__": lambda _: "?", "__repr__": lambda _: "?"})(
        *arguments
    )


SUBCLASSES: list[tuple[Any, Any]] = [
    (numpy.float64(1.5), 1.5),
    (numpy.str_("ä"), "ä"),
    (a(str, "text"), "text"),
    (a(int, 2**60), 2**60),
    (a(float, 0.5), 0.5),
    (a(bytes, b"\xff"), b"\xff"),
    (a(Decimal, "1.10"), Decimal("1.10")),
    (a(date, 2020, 1, 2), date(2020, 1, 2)),
    (a(time, 1, 2, 3, 4, UTC), time(1, 2, 3, 4, UTC)),
    (a(timedelta, 1, 2, 3), timedelta(1, 2, 3)),
    (pandas.Timestamp("2020-01-02 03:04:05.000006"), datetime(2020, 1, 2, 3, 4, 5, 6)),
    (pandas.Timestamp("2020-01-02", tz="UTC"), datetime(2020, 1, 2, tzinfo=UTC)),
    (pandas.Timedelta(days=1, microseconds=3), timedelta(1, 0, 3)),
    ({a(str, "key"): [a(int, 1)], a(int, 2): (a(float, 0.5), None)}, {"key": [1], 2: [0.5, None]}),
]


@pytest.mark.parametrize(("value", "plain"), SUBCLASSES)
def test_subclasses_count_as_what_they_are_made_of(value: Any, plain: Any) -> None:
    for name, encode in (("json", json.encode), ("msgpack", msgpack.encode)):
        serialize = serializer_of("value_serializer", name)
        assert serialized("value", value, serialize) == encode(plain)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_what_no_serializer_takes(name: str) -> None:
    serialize = serializer_of("value_serializer", name)
    with pytest.raises(SerializationError, match="objects of type object is unsupported"):
        serialized("value", [object()], serialize)
    with pytest.raises(SerializationError, match="NaT is no time: give None for what is missing"):
        serialized("value", [pandas.NaT], serialize)


@pytest.mark.parametrize("key", [None, (1, 2), frozenset([1]), True])
def test_what_is_no_key_in_json(key: Any) -> None:
    serialize = serializer_of("value_serializer", "json")
    with pytest.raises(SerializationError, match="dicts with str-like or number-like keys"):
        serialized("value", {key: 1}, serialize)


def test_functions_of_main_are_pickled_whole() -> None:
    serialize, deserialize = serializer_of("value_serializer", "pickle"), deserializer_of("x", "pickle")
    assert serialize is not None
    assert deserialize is not None
    data = serialize(lambda number: number + 1)
    assert data is not None
    assert deserialize(data)(1) == 2


class Bomb:
    """What runs code when it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


@pytest.mark.parametrize("name", [None, "json", "str", "msgpack"])
def test_nothing_is_unpickled_that_was_not_asked_for(cluster: Cluster, name: str | None) -> None:
    servers, topic = cluster.bootstrap_servers, f"bomb-{name}"
    with Admin(servers) as admin:
        admin.create_topic(topic)
    bomb = pickle.dumps(Bomb())
    with Producer(servers) as producer:
        producer.send(topic, bomb)
    with Consumer(
        topic, bootstrap_servers=servers, value_deserializer=name, auto_offset_reset="earliest"
    ) as consumer:
        if name is None:
            ((record,),) = consumer.poll(20_000).values()
            assert record.value == bomb
        else:
            with pytest.raises(SerializationError):
                consumer.poll(20_000)
    assert not Bomb.exploded
    pickle.loads(bomb)
    assert Bomb.exploded
    Bomb.exploded = False


@pytest.mark.parametrize("given", ["jsn", "", 5])
def test_what_is_no_serializer(given: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="'json', 'str', 'msgpack', 'pickle'"):
        serializer_of("value_serializer", given)
    with pytest.raises(InvalidArgumentError, match="value_deserializer"):
        deserializer_of("value_deserializer", given)
