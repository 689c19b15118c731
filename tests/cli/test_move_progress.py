"""How watched moves are told about."""

import json
from typing import Any

import pytest

from tailrace.cli import move_progress
from tailrace.cli.move_progress import Watched, wait_for_moves
from tailrace.client.moves import MoveDescription
from tailrace.protocol.record import TopicPartition

PLACES = [TopicPartition("t", 0), TopicPartition("t", 1)]


def move(partition: int, copied: int, left: int) -> MoveDescription:
    return MoveDescription(
        topic="t",
        partition=partition,
        former=(1,),
        replicas=(1, 2),
        target=(2,),
        waiting=(2,),
        copied_bytes=copied,
        left_bytes=left,
        throttle_bytes_per_s=0,
    )


class Moves:
    """Answers in turn, the last one again and again."""

    def __init__(self, *answers: list[MoveDescription]) -> None:
        self._answers = list(answers)

    def list_moves(self) -> list[MoveDescription]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def test_rate_and_rest_are_those_since_the_first_look() -> None:
    watched = Watched(set(PLACES))
    first = watched.look([move(0, 1_000, 9_000), move(1, 0, 5_000), move(2, 7, 7)], 10.0)
    assert (first.partitions, first.done, first.copied_bytes, first.left_bytes) == (2, 0, 0, 14_000)
    assert first.left_s is None
    second = watched.look([move(0, 3_000, 7_000), move(1, 2_000, 3_000)], 14.0)
    assert (second.copied_bytes, second.bytes_per_s, second.left_s) == (4_000, 1_000.0, 10.0)
    third = watched.look([move(1, 4_096, 1_024)], 15.0)
    assert (third.done, third.copied_bytes, third.left_bytes) == (1, 13_096, 1_024)
    assert third.text == (
        "1 of 2 partitions moved, 12.8 KiB copied, 1.0 KiB left, 2.6 KiB/s, about 0 s to go"
    )
    last = watched.look([], 16.0)
    assert last.text == "2 of 2 partitions moved, 13.8 KiB copied, 0 B left, 2.3 KiB/s"


def test_what_was_over_before_the_first_look_is_no_rate() -> None:
    assert Watched(set(PLACES)).look([], 10.0).text == "2 of 2 partitions moved"


def test_a_standstill_is_told_with_who_is_waited_for() -> None:
    watched = Watched(set(PLACES))
    moves = [move(0, 1_024, 9_216), move(1, 0, 0)]
    for now in (10.0, 19.9):
        assert watched.look(moves, now).still_s == 0
    still = watched.look(moves, 22.0)
    assert (still.still_s, still.waits_for) == (12.0, (2,))
    assert still.text == (
        "0 of 2 partitions moved, 0 B copied, 9.0 KiB left, 0 B/s, nothing has come to node 2 for 12 s: "
        "see tailrace cluster status"
    )
    assert watched.look([move(0, 2_048, 8_192), move(1, 0, 0)], 23.0).still_s == 0
    assert watched.look([move(1, 0, 0)], 40.0).still_s == 0
    assert watched.look([move(1, 0, 0)], 50.0).still_s == 10.0
    assert watched.look([], 99.0).still_s == 0


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (125, "2 min 5 s"), (7_500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert move_progress._duration(seconds) == text


def test_it_is_watched_until_nothing_moves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(move_progress, "LOOK_EVERY_S", 0)
    admin: Any = Moves([move(0, 0, 10), move(1, 0, 10)], [move(1, 5, 5)], [])
    wait_for_moves(admin, PLACES, as_json=True)
    assert [json.loads(line)["done"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 2]
    wait_for_moves(admin, PLACES, as_json=False)
    assert capsys.readouterr().err.startswith("2 of 2 partitions moved")
    wait_for_moves(admin, [], as_json=False)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(move_progress, "LOOK_EVERY_S", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    admin: Any = Moves([move(0, 0, 10)], [])
    wait_for_moves(admin, PLACES, as_json=False)
    assert "2 of 2 partitions moved" in capsys.readouterr().err


def test_ctrl_c_ends_the_watching_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(move_progress.time, "sleep", interrupt)
    admin: Any = Moves([move(0, 0, 10)])
    with pytest.raises(KeyboardInterrupt):
        wait_for_moves(admin, PLACES, as_json=False)
    assert "the cluster moves on" in capsys.readouterr().err
