"""Offsets in a local store: what is stored when, and where the next consumer goes on."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tailrace.consumer import Consumer
from tailrace.protocol.errors import DataFolderError, InvalidArgumentError, OffsetOutOfRangeError
from tailrace.testing import Cluster

from ..patience import PATIENCE_S
from .conftest import Feeder, at, values_of

Make = Callable[..., Consumer]


class TroubleError(Exception):
    """The application's own."""


@pytest.fixture
def hundred(feeder: Feeder) -> str:
    """A topic of one partition that holds 0 to 99."""
    topic = feeder.topic()
    for start in range(0, 100, 10):
        feeder.send_numbers(topic, range(start, start + 10))
    return topic


@pytest.fixture
def stored(consume: Make, tmp_path: Path) -> Make:
    """Consumers with one offset store."""

    def make(*topics: str, **options: object) -> Consumer:
        return consume(*topics, offset_store=tmp_path / "offsets", **options)

    return make


def test_a_clean_close_covers_everything_handed_over(stored: Make, hundred: str) -> None:
    for start in range(0, 100, 25):
        consumer = stored(hundred)
        assert values_of(consumer, 25) == [b"%d" % number for number in range(start, start + 25)]
        consumer.close()
    assert stored(hundred).poll(100) == {}


def test_the_start_is_stored_so_that_nothing_is_missed_before_the_first_commit(
    stored: Make, hundred: str, feeder: Feeder
) -> None:
    consumer = stored(hundred, auto_offset_reset="latest", auto_commit_interval_ms=3_600_000)
    assert consumer.committed(at(hundred)) == 100
    consumer.close()
    feeder.send(hundred, b"while it was away")
    assert values_of(stored(hundred, auto_offset_reset="latest"), 1) == [b"while it was away"]


def test_auto_commit_never_covers_what_is_in_hand(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, auto_commit_interval_ms=0)
    for record in consumer:
        assert consumer.committed(at(hundred)) == record.offset
        if record.offset == 20:
            break
    consumer.poll(PATIENCE_S * 1_000, max_records=5)
    assert consumer.committed(at(hundred)) == 21
    batch = next(consumer.batches())
    assert consumer.committed(at(hundred)) == batch.offsets[0] == 26
    next(consumer.batches())
    assert consumer.committed(at(hundred)) == batch.offsets[-1] + 1 == 30


def test_auto_commit_keeps_its_interval(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, auto_commit_interval_ms=3_600_000)
    for _ in range(10):
        values_of(consumer, 5)
    assert consumer.committed(at(hundred)) == 0
    assert consumer.metrics()["offsets_stored"] == 1


def test_auto_commit_is_done_while_waiting(stored: Make, hundred: str, feeder: Feeder) -> None:
    consumer = stored(hundred, auto_commit_interval_ms=100)
    values_of(consumer, 100)
    consumer.poll(1_500)
    assert consumer.committed(at(hundred)) == 100


def test_an_exception_leaves_the_record_in_hand_for_the_next_time(stored: Make, hundred: str) -> None:
    def read() -> None:
        with stored(hundred, auto_commit_interval_ms=3_600_000) as consumer:
            for record in consumer:
                if record.offset == 7:
                    raise TroubleError

    with pytest.raises(TroubleError):
        read()
    assert values_of(stored(hundred), 1) == [b"7"]


def test_an_exception_leaves_the_poll_in_hand_for_the_next_time(stored: Make, hundred: str) -> None:
    def read() -> None:
        with stored(hundred, auto_commit_interval_ms=3_600_000) as consumer:
            values_of(consumer, 5)
            values_of(consumer, 5)
            raise TroubleError

    with pytest.raises(TroubleError):
        read()
    assert values_of(stored(hundred), 1) == [b"5"]


def test_leaving_a_loop_covers_the_record_in_hand(stored: Make, hundred: str) -> None:
    with stored(hundred) as consumer:
        for record in consumer:
            if record.offset == 7:
                break
    assert values_of(stored(hundred), 1) == [b"8"]


def test_commit_covers_everything_handed_over(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, enable_auto_commit=False)
    assert consumer.committed(at(hundred)) is None
    values_of(consumer, 5)
    consumer.commit()
    assert consumer.committed(at(hundred)) == 5
    for record in consumer:
        if record.offset == 9:
            consumer.commit()
        if record.offset == 15:
            break
    assert consumer.committed(at(hundred)) == 10
    consumer.close()
    assert values_of(stored(hundred, enable_auto_commit=False), 1) == [b"10"]


def test_a_commit_in_a_loop_is_not_taken_back_by_an_exception(stored: Make, hundred: str) -> None:
    def read() -> None:
        with stored(hundred) as consumer:
            for record in consumer:
                if record.offset == 7:
                    consumer.commit()
                    raise TroubleError

    with pytest.raises(TroubleError):
        read()
    assert values_of(stored(hundred), 1) == [b"8"]


def test_offsets_can_be_given(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, enable_auto_commit=False)
    values_of(consumer, 50)
    consumer.commit({at(hundred): 33})
    assert consumer.committed(at(hundred)) == 33
    with pytest.raises(InvalidArgumentError, match="offset is -1"):
        consumer.commit({at(hundred): -1})
    with pytest.raises(InvalidArgumentError, match="other-0 is not assigned"):
        consumer.commit({at("other"): 1})
    consumer.close()
    assert values_of(stored(hundred), 1) == [b"33"]


def test_a_seek_is_stored_with_the_next_ask(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, auto_commit_interval_ms=0)
    values_of(consumer, 50)
    consumer.seek(at(hundred), 20)
    assert consumer.committed(at(hundred)) == 0
    assert values_of(consumer, 1) == [b"20"]
    assert consumer.committed(at(hundred)) == 20


def test_without_a_store_commits_are_refused(consume: Make, hundred: str) -> None:
    consumer = consume(hundred)
    for call in (consumer.commit, lambda: consumer.committed(at(hundred))):
        with pytest.raises(
            InvalidArgumentError, match="stored nowhere: give group_id, or offset_store=<folder>"
        ):
            call()


@pytest.mark.parametrize(("reset", "first"), [("earliest", b"0"), ("latest", b"new")])
def test_a_stored_offset_that_the_log_does_not_have(
    stored: Make, hundred: str, feeder: Feeder, reset: str, first: bytes
) -> None:
    consumer = stored(hundred, enable_auto_commit=False)
    consumer.commit({at(hundred): 5_000})
    consumer.close()
    consumer = stored(hundred, auto_offset_reset=reset)
    feeder.send(hundred, b"new")
    assert values_of(consumer, 1) == [first]


def test_a_stored_offset_that_the_log_does_not_have_without_a_policy(stored: Make, hundred: str) -> None:
    consumer = stored(hundred, enable_auto_commit=False)
    consumer.commit({at(hundred): 5_000})
    consumer.close()
    consumer = stored(hundred, auto_offset_reset="none")
    with pytest.raises(OffsetOutOfRangeError, match="offset 5000 is out of range, the log starts at 0"):
        consumer.poll(PATIENCE_S * 1_000)


def test_offsets_of_a_deleted_topic_are_not_used_for_its_successor(
    stored: Make, hundred: str, feeder: Feeder
) -> None:
    consumer = stored(hundred)
    values_of(consumer, 50)
    consumer.close()
    feeder.admin.delete_topic(hundred)
    feeder.admin.create_topic(hundred)
    feeder.send_numbers(hundred, range(1_000, 1_100))
    assert values_of(stored(hundred), 1) == [b"1000"]


def test_a_pool_shares_the_folder_but_no_partition(stored: Make, feeder: Feeder) -> None:
    topic = feeder.topic(partitions=3)
    first, second = stored(), stored()
    first.assign([at(topic, 0), at(topic, 1)])
    second.assign([at(topic, 2)])
    with pytest.raises(DataFolderError, match=rf"{topic}-1 in .*: held by process \d+ \(consumer-\d+-\d+\)"):
        second.assign([at(topic, 2), at(topic, 1)])
    assert second.assignment() == {at(topic, 2)}, "a refused assignment changes nothing"
    first.assign([at(topic, 0)])
    second.assign([at(topic, 2), at(topic, 1)])
    with pytest.raises(DataFolderError):
        stored(topic)
    first.close()
    second.close()
    assert stored(topic).assignment() == {at(topic, number) for number in range(3)}


def test_giving_up_a_partition_stores_its_offset(stored: Make, hundred: str) -> None:
    first = stored(hundred, auto_commit_interval_ms=3_600_000)
    values_of(first, 10)
    first.unsubscribe()
    assert values_of(stored(hundred), 1) == [b"10"]


READER = """
    import sys
    from tailrace import Consumer

    servers, topic, folder, way, interval_ms = sys.argv[1:]
    consumer = Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", offset_store=folder,
                        auto_commit_interval_ms=int(interval_ms), max_poll_records=7,
                        consumer_timeout_ms=5_000)
    def polls():
        while polled := consumer.poll(5_000):
            for records in polled.values():
                yield from records
    for record in polls() if way == "poll" else consumer:
        print(record.offset, flush=True)
"""


@pytest.mark.parametrize(("way", "twice"), [("iterate", 1), ("poll", 7)])
def test_a_killed_consumer_goes_on_where_it_was(
    cluster: Cluster, feeder: Feeder, tmp_path: Path, way: str, twice: int
) -> None:
    """With every ask stored, only what was in hand comes again."""
    topic = feeder.topic()
    for start in range(0, 300, 10):
        feeder.send_numbers(topic, range(start, start + 10))
    arguments = [cluster.bootstrap_servers, topic, str(tmp_path), way, "0"]
    seen: list[int] = []
    while 299 not in seen:
        read = run_and_kill(arguments, 100)
        if seen:
            assert seen[-1] + 1 - twice <= read[0] <= seen[-1] + 1
        assert read == list(range(read[0], read[0] + len(read)))
        seen += read
    assert sorted(set(seen)) == list(range(300))


def run_and_kill(arguments: list[str], lines: int) -> list[int]:
    """Start a reader, kill -9 it after so many lines or when it finds no more; all that it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), *arguments], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        read = list(islice(reader.stdout, lines))
        reader.send_signal(signal.SIGKILL)
        read += reader.stdout
    return [int(line) for line in read if line.endswith("\n")]
