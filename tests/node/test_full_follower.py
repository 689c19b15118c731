"""A follower whose quota is full: it tries again and again, says so once, and goes on when there is room."""

import time

import pytest

from tailrace.node.replication.copying import Copier, CopyStep
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import StorageFullError, TailraceError
from tailrace.protocol.limits import MIB
from tailrace.protocol.messages import ACKS_LEADER, DeleteTopic, Produce

from ..patience import wait_until
from .conftest import House


def test_it_says_once_that_it_is_full_and_once_that_it_goes_on(
    bare_house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[bytes] = []
    done = Copier.done

    def count(self: Copier, step: CopyStep, error: TailraceError | None, now: float) -> None:
        if isinstance(error, StorageFullError):
            refused.append(step.key[0])
        done(self, step, error, now)

    monkeypatch.setattr(Copier, "done", count)
    bare_house.start_coordinator()
    bare_house.start(1)
    bare_house.start(2, quota_bytes=8 * MIB, reserve_bytes=MIB)
    topics = [bare_house.create(f"t{number}", replicas=2) for number in range(6)]
    led = [topic for topic in topics if topic.info.partitions[0].leader == 1]
    leader = bare_house.peer()
    batch = encode([bytes(500_000)], timestamps=time.time_ns() // 1_000_000)
    for _ in range(10):  # 5 MB each: one fits
        for topic in led:
            leader.ask(Produce, [batch], acks=ACKS_LEADER, entries=[topic.entry()])
    wait_until(
        lambda: all(refused.count(topic.id) > 3 for topic in led), "the follower tries again and again"
    )
    (told,) = lines(caplog)
    assert "-0: no room for a batch of " in told

    for topic in led[1:]:
        bare_house.peer(bare_house.coordinator_ipc).ask(DeleteTopic, name=topic.info.name)
    wait_until(lambda: len(lines(caplog)) > 1, "it goes on")
    assert lines(caplog)[1].startswith(f"following goes on, at last {led[0].info.name}-0, after ")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("following ")]
