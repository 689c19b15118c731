"""A test whose clients do what they are told to: what is made of that before anything is measured."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tailrace.bench import runner
from tailrace.bench.lines import Done
from tailrace.bench.runner import Runner
from tailrace.bench.spec import Spec, Task
from tailrace.bench.verify import Seen, SequenceSet
from tailrace.client.admin import Admin
from tailrace.protocol.errors import DeliveryFailedError, WorkerFailedError
from tailrace.protocol.record import TopicPartition

from .conftest import heard


class Clients:
    """In place of a crew: its clients have ended when they are waited for, and the runner ticks once."""

    def __init__(self, tick: Callable[[], None], done: Done) -> None:
        self._tick = tick
        self._done = done
        self.clients: list[Any] = []
        self.interrupted = self.stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def add(self, tasks: Iterable[Task], _timeout_s: float) -> list[Any]:
        added = [
            SimpleNamespace(
                task=task,
                done=self._done,
                records=0,
                latencies=[],
                heard=heard(task.role, task.index, []),
                tell=lambda _: None,
            )
            for task in tasks
        ]
        self.clients += added
        return added

    def start(self) -> int:
        return 1

    def wait(self, *_: object) -> None:
        self._tick()

    def stop(self) -> None:
        self.stopping = True


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runner]:
    """`fill(done)`: consumers are to read what two producers write, who tell `done`."""

    def make(done: Done, **servers: int) -> Runner:
        monkeypatch.setattr(runner, "Crew", lambda tick: Clients(tick, done))
        ends = {TopicPartition("t", 0): SimpleNamespace(offset=0)}
        admin: Any = SimpleNamespace(list_offsets=lambda *_, **__: ends)
        spec = Spec(mode="consume", topic="t", producers=2, records=20)
        return Runner(spec, admin, servers, lambda _: None, own=bool(servers))

    return make


@pytest.mark.parametrize(("start", "said"), [(0, False), (4, True)])
def test_what_retention_deletes_is_told_of(monkeypatch: pytest.MonkeyPatch, start: int, said: bool) -> None:
    """Where it is not known what became of a record."""
    acked = SequenceSet()
    acked.add_range(0, 10)
    done = Done(sent=10, acked=acked.pack(), seen=Seen())
    monkeypatch.setattr(runner, "Crew", lambda tick: Clients(tick, done))
    offsets = {Admin.EARLIEST: start, Admin.LATEST: 0}
    admin: Any = SimpleNamespace(
        list_offsets=lambda wanted, **_: {
            place: SimpleNamespace(offset=offsets[which]) for place, which in wanted.items()
        }
    )
    spec = Spec(mode="produce", topic="t", records=10, verify=True)
    verdict = Runner(spec, admin, {}, lambda _: None).run().verification
    assert verdict is not None
    assert (verdict.holds, verdict.lost, verdict.deleted) == (False, 10, start)
    gone = "retention has deleted 4 records since the beginning: what was not read may be among them"
    assert (gone in verdict.text()) is said


def test_what_is_to_be_read_was_not_all_written(fill: Callable[..., Runner]) -> None:
    with pytest.raises(DeliveryFailedError) as failure:
        fill(Done(sent=10, failed=4, error="the disk is full")).run()
    assert str(failure.value) == (
        "nothing was measured: of 20 records to be read 8 were not acknowledged: the disk is full"
    )


def test_a_node_that_ends_before_anything_is_measured(
    fill: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    filling = fill(Done(sent=10), node=1)
    monkeypatch.setattr(filling._servers, "gone", ["node 1"])
    monkeypatch.setattr(filling._servers, "look", lambda: None)
    with pytest.raises(WorkerFailedError, match="node 1 has ended, and nobody starts it again"):
        filling.run()
