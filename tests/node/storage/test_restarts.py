"""Killed at any moment, storage opens at once and holds all that was reported."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage import Append, Appended
from tailrace.protocol.batch import parse_header
from tailrace.protocol.limits import GIB, MIB

from .support import KEY, TOPIC, batch, commit, fill, one_log

WRITER = Path(__file__).with_name("killed_writer.py")


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.5])
def test_kill_9_in_the_middle_of_commits(house: Any, after_s: float) -> None:
    writer = subprocess.Popen([sys.executable, str(WRITER), str(house.folder)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    first = writer.stdout.readline()
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    lines = [first, *writer.stdout.read().splitlines()]
    reported = [json.loads(line) for line in lines if line.rstrip().endswith(b"]")]
    writer.wait()
    writer.stdout.close()
    storage = house.open()
    assert not storage.clean
    for partition, base_offset, last_offset, crc in reported:
        log = storage.logs[TOPIC, partition]
        assert last_offset < log.log_end_offset
        if base_offset >= log.log_start_offset:
            header = parse_header(storage.read(log, base_offset, 1, log.log_end_offset, bytes)[0])
            assert (header.base_offset, header.last_offset, header.crc) == (base_offset, last_offset, crc)
    for log in storage.logs.values():
        assert log.high_watermark == log.log_end_offset


def faults_of_opening(house: Any) -> int:
    """Page faults of this process while it opens the folder and appends: none without touching a page."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    storage = house.open(quota_bytes=GIB)
    commit(storage, storage.logs[KEY], batch(1))
    after = resource.getrusage(resource.RUSAGE_SELF)
    storage.close(clean=False)
    house.storage = None
    return after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt


def test_opening_touches_no_batches(house: Any) -> None:
    """Which is why it takes the same time whatever the logs' size."""
    one_log(house.open(quota_bytes=GIB))
    house.close()
    empty = min(faults_of_opening(house) for _ in range(3))
    storage = house.open(quota_bytes=GIB)
    data = batch(1, size=MIB)
    for _ in range(4):
        commit(storage, storage.logs[KEY], *[data] * 16)
    house.close()
    full = min(faults_of_opening(house) for _ in range(3))
    assert full - empty < 16, "of 64 batches in 16,000 pages"


def test_a_dense_history_of_restarts(house: Any) -> None:
    storage = house.open()
    one_log(storage)
    for number in range(12):
        log = storage.logs[KEY]
        (result,) = commit(storage, log, batch(2, producer=1, sequence=2 * number))
        assert result == Appended(2 * number, 2 * number + 1, False)
        if number % 3 == 2:
            storage.retain(log, -1, log.size_bytes // 2, 0)
        storage = house.reopen(clean=number % 2 == 0)


def test_a_group_is_stored_as_a_whole_or_not_at_all(house: Any) -> None:
    """The file as it was before a commit's meta write holds nothing of that commit."""
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 2)
    storage.create([(TOPIC, 1)])
    copy = house.folder.parent / "copy"
    copy.mkdir(mode=0o700)
    storage._tables.environment.copy(str(copy))
    other = storage.logs[TOPIC, 1]
    group = [
        Append(target, memoryview(bytearray(data)), parse_header(data), 1_700_000_000_000)
        for target, data in ((log, batch(1, producer=1, sequence=0)), (other, batch(3)))
    ]
    assert all(isinstance(result, Appended) for result in storage.commit(group))
    house.close()
    house.folder = copy
    storage = house.open()
    assert {key[1]: log.log_end_offset for key, log in storage.logs.items()} == {0: 2, 1: 0}
