"""A signal handler that raises anywhere in a transaction, and in what undoes it: each record counts once."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tailrace import Consumer, TopicPartition, read_local_state

from ...interrupting import InterruptionError, Interrupts, interrupted_at
from ...patience import PATIENCE_S
from ..conftest import Feeder

RECORDS = 4_000
STRIDE = 7
Consume = Callable[..., Consumer]


@pytest.fixture(scope="module")
def numbers(feeder: Feeder) -> str:
    topic = feeder.topic()
    feeder.send_numbers(topic, range(RECORDS))
    return topic


def count_one(consumer: Consumer) -> None:
    for place, records in consumer.poll(PATIENCE_S * 1_000, max_records=1).items():
        begun = False
        try:
            with consumer.local_transaction(place) as transaction:
                begun = True
                for record in records:
                    transaction.put(record.value, b"%d" % (int(transaction.get(record.value) or 0) + 1))
        except InterruptionError:
            if not begun:  # what comes before the block is the application's to undo
                seek(consumer, place, records[0].offset)
            raise


def seek(consumer: Consumer, place: TopicPartition, offset: int) -> None:
    try:
        consumer.seek(place, offset)
    except InterruptionError:
        consumer.seek(place, offset)


def interrupted(consumer: Consumer, point: int) -> Interrupts:
    """The application goes on with the next one. Every other time a second signal comes soon after."""
    further = () if point % 2 else (1 + point % 61,)
    with interrupted_at(point, *further) as interrupts:
        for _ in range(2):
            with suppress(InterruptionError):
                count_one(consumer)
    return interrupts


def counts(folder: Path) -> dict[bytes, bytes]:
    return {entry.key: entry.value for entry in read_local_state(folder)}


def options(folder: Path) -> dict[str, Any]:
    return {"offset_store": folder, "enable_auto_commit": False}


def test_one_after_the_other(consume: Consume, numbers: str, tmp_path: Path) -> None:
    consumer, places = consume(numbers, **options(tmp_path)), set[str]()
    for point in count(1):
        interrupts = interrupted(consumer, point)
        places.update(place.partition(":")[0] for place in interrupts.places)
        if interrupts.over and not interrupts.places:
            break
    assert {"local_transactions.py", "partition.py", "asking.py"} <= places
    (place,) = consumer.assignment()
    while (at := consumer.position(place)) < RECORDS:
        count_one(consumer)
        assert consumer.position(place) == at + 1
    consumer.close()
    assert counts(tmp_path) == {b"%d" % number: b"1" for number in range(RECORDS)}


def test_the_first_one_of_a_folder(consume: Consume, numbers: str, tmp_path: Path) -> None:
    for point in count(1, STRIDE):
        folder = tmp_path / str(point)
        consumer = consume(numbers, **options(folder))
        interrupts = interrupted(consumer, point)
        count_one(consumer)
        consumer.close()
        found = counts(folder)
        assert found == {b"%d" % number: b"1" for number in range(len(found))}, (point, interrupts.places)
        assert 1 <= len(found) <= 3
        if interrupts.over and not interrupts.places:
            break
