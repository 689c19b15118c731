"""When it is tried whether a missing node is there, and what follows."""

from dataclasses import dataclass, field

from tailrace.coordinator.probing import RETRY_S, Probing
from tailrace.protocol.cluster import Listener

ONE, TWO = Listener("tcp://127.0.0.1:1"), Listener("tcp://127.0.0.1:2")


@dataclass
class Attempt:
    listener: Listener
    refused: bool = False
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Attempts:
    made: list[Attempt] = field(default_factory=list)

    def connect(self, listener: Listener) -> Attempt:
        self.made.append(Attempt(listener))
        return self.made[-1]


def test_an_attempt_goes_on_until_it_is_refused_or_old() -> None:
    attempts = Attempts()
    probing = Probing(attempts.connect)
    assert probing.next_look(1.0) is None
    assert probing.refused({1: ONE}, 1.0) == []
    assert probing.next_look(1.0) is not None
    assert probing.refused({1: ONE}, 1.0 + RETRY_S / 2) == []
    assert len(attempts.made) == 1
    attempts.made[0].refused = True
    assert probing.refused({1: ONE}, 1.0 + RETRY_S / 2) == [1]
    assert probing.refused({1: ONE}, 1.0 + RETRY_S) == []
    assert [attempt.closed for attempt in attempts.made] == [True, False]


def test_who_is_back_or_has_moved_is_not_tried_at_the_old_place() -> None:
    attempts = Attempts()
    probing = Probing(attempts.connect)
    probing.refused({1: ONE, 2: TWO}, 1.0)
    attempts.made[0].refused = attempts.made[1].refused = True
    assert probing.refused({1: TWO}, 1.0) == []
    assert [attempt.listener for attempt in attempts.made] == [ONE, TWO, TWO]
    assert [attempt.closed for attempt in attempts.made] == [True, True, False]
    probing.close()
    assert probing.next_look(2.0) is None
    assert attempts.made[2].closed
