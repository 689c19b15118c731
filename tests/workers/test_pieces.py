"""What a pool and its workers share, without processes but where one is needed."""

import os
import subprocess
import sys
import threading

import pytest

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.workers.board import Board, Place
from tailrace.workers.progress import Counters, Ear, Tally, Voice
from tailrace.workers.spec import Spec, ship

MAIN = """
import os, subprocess, sys
from tailrace.workers.spec import Spec, ship
factor = 3
def times(x): return x * factor
fd = ship(Spec(handler=lambda x: times(x) + 1, topics=("t",), group_id="g", batches=False, retries=0,
    retry_backoff_ms=0, commit_interval_ms=0, dead_letter_topic=None, output_topic=None,
    output_serializer=None,
    key_deserializer=None, value_deserializer=None, local_state=False, consumer={}, producer={}))
child = "import sys; from tailrace.workers.spec import unpack; print(unpack(int(sys.argv[1])).handler(5))"
for _ in range(2):
    subprocess.run([sys.executable, "-c", child, str(fd)], pass_fds=[fd], check=True)
"""


def test_lambdas_and_functions_of_main_reach_a_fresh_process_as_often_as_it_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "16\n16\n"), done.stderr


def test_a_handler_that_cannot_travel_is_refused() -> None:
    lock = threading.Lock()
    fields = dict.fromkeys(Spec.__dataclass_fields__)
    with pytest.raises(InvalidArgumentError, match="make that inside the handler"):
        ship(Spec(**fields | {"handler": lambda _: lock.acquire()}))


def test_the_board_tells_what_a_worker_has_in_hand_and_what_is_poisoned() -> None:
    board = Board.create(2)
    theirs = Board(os.dup(board.fd), 2)
    assert board.in_hand(1) is None
    theirs.take(1, b"orders", 3, 17)
    assert board.in_hand(1) == Place("orders", 3, 17)
    assert board.in_hand(0) is None
    board.poison({Place("orders", 3, 17)})
    assert Place("orders", 3, 17) in theirs.poisoned()
    theirs.put_down(1)
    assert board.in_hand(1) is None
    theirs.close()
    board.close()


def test_totals_go_on_over_a_workers_lives() -> None:
    reader, writer = os.pipe()
    tally, voice, ear = Tally(), Voice(writer), Ear(reader)
    assert ear.events() == ([], True)
    voice.progress(Counters(records=10))
    [event], more = ear.events()
    assert more
    assert (event.pop("event"), event.pop("reached")) == ("progress", [])
    tally.heard(Counters(**event), 1.0)
    tally.heard(Counters(records=30, lag=5), 3.0)
    assert tally.fields()["records_per_s"] == 10.0
    tally.ended()
    tally.heard(Counters(records=1), 4.0)
    assert (tally.fields()["records"], tally.fields()["lag"]) == (31, 0)
    os.close(writer)
    assert ear.events() == ([], False)
    os.close(reader)
