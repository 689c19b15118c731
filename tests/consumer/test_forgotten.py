"""A consumer that is dropped without close(): as if somebody had closed it, but for what it would store."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace import AsyncConsumer, Consumer, RebalanceListener

from ..descriptors import descriptors
from ..patience import PATIENCE_S
from .conftest import Feeder, values_of

NAME = "the forgotten one"
Consume = Callable[..., Consumer]


def wait_for_the_end() -> None:
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name == NAME for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "its I/O thread lives on"
        time.sleep(0.01)


def options(feeder: Feeder, **others: Any) -> dict[str, Any]:
    own = {"bootstrap_servers": feeder.cluster.bootstrap_servers, "client_id": NAME}
    return {**own, "auto_offset_reset": "earliest", **others}


def cell(feeder: Feeder, topic: str, **others: Any) -> None:
    """What a notebook's cell does, and does again."""
    consumer = Consumer(topic, **options(feeder, **others))
    assert values_of(consumer, 1) == [b"0"]


def forget(feeder: Feeder, topic: str, **others: Any) -> None:
    with pytest.warns(ResourceWarning, match=f"{NAME} was not closed"):
        cell(feeder, topic, **others)
    wait_for_the_end()


def test_its_group_goes_on_at_once(feeder: Feeder, consume: Consume) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(2))
    forget(feeder, topic, group_id=topic, session_timeout_ms=600_000)
    second = consume(topic, group_id=topic)
    assert values_of(second, 2) == [b"0", b"1"], "what it had in hand is read again"


def test_a_static_member_keeps_its_place_in_the_group(feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(1))
    forget(feeder, topic, group_id=topic, group_instance_id="first", session_timeout_ms=600_000)
    members = feeder.admin.describe_group(topic).members
    assert [member.instance_id for member in members] == ["first"]


def test_its_offset_store_is_free_again(feeder: Feeder, consume: Consume, tmp_path: Path) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(2))
    forget(feeder, topic, offset_store=tmp_path / "offsets")
    assert values_of(consume(topic, offset_store=tmp_path / "offsets"), 1) == [b"0"]


def test_a_listener_that_knows_its_consumer_does_not_keep_it(feeder: Feeder) -> None:
    class Listener(RebalanceListener):
        def __init__(self, consumer: Consumer) -> None:
            self.consumer = consumer

    def work() -> None:
        consumer = Consumer(**options(feeder, group_id=topic))
        consumer.subscribe([topic], listener=Listener(consumer))
        del consumer
        gc.collect()

    topic = feeder.topic()
    with pytest.warns(ResourceWarning, match=f"{NAME} was not closed"):
        work()
    wait_for_the_end()


@pytest.mark.parametrize("by", ["records", "batches"])
def test_what_is_iterated_is_not_forgotten(feeder: Feeder, by: str) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(2))
    consumer = Consumer(topic, **options(feeder, group_id=topic))
    iterator = iter(consumer) if by == "records" else consumer.batches()
    del consumer
    gc.collect()
    next(iterator)
    feeder.send_numbers(topic, range(2))
    assert next(iterator)
    with pytest.warns(ResourceWarning, match=f"{NAME} was not closed"):
        del iterator
    wait_for_the_end()


def test_its_files_are_closed(feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(1))

    def come_and_go() -> int:
        forget(feeder, topic)
        return descriptors()

    assert come_and_go() == come_and_go()


@pytest.mark.parametrize("by", ["poll", "getone", "iteration"])
def test_an_async_one(feeder: Feeder, consume: Consume, by: str, tmp_path: Path) -> None:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(2))

    async def work() -> None:
        consumer = AsyncConsumer(topic, **options(feeder, group_id=topic, offset_store=tmp_path / "offsets"))
        await consumer.start()
        if by == "poll":
            await consumer.poll(PATIENCE_S * 1_000)
        elif by == "getone":
            await consumer.getone()
        else:
            async for _ in consumer:
                break

    def cell() -> None:
        asyncio.run(work())
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"{NAME} was not closed"):
        cell()
    wait_for_the_end()
    second = consume(topic, group_id=topic, offset_store=tmp_path / "offsets")
    assert values_of(second, 2) == [b"0", b"1"]
