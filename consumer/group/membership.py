"""One member of a group, as the member sees it. Pure: it decides what to send, and what replies mean.

    OUT ──subscribe──▶ JOINING ──answer──▶ IN ──unknown member──▶ LOST ──rejoin──▶ JOINING
                          └──refused──▶ REFUSED (until the application subscribes again)

`assigned` is what the coordinator said last; `held` is what the application reads, or has begun to
take. A heartbeat owns both: what is held and no longer assigned is free for others only when the
application has given it up.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from random import Random
from typing import NamedTuple, TypeAlias

from tailrace.client.retry import Backoff
from tailrace.protocol.errors import (
    ClosedError,
    InstanceIdInUseError,
    TailraceError,
    UnknownMemberError,
)
from tailrace.protocol.group_messages import NO_MEMBER, NO_MEMBER_EPOCH
from tailrace.protocol.limits import INSTANCE_ID_PATIENCE_MS, RETRY_BACKOFF_MS_FIRST

Key: TypeAlias = tuple[bytes, int]
"""Topic id and partition."""
RETRY_S_MAX = 0.25
"""Longest pause between attempts: a member that cannot reach the coordinator has a session to lose."""


class Phase(Enum):
    """Where the member stands."""

    OUT = "out"
    JOINING = "joining"
    IN = "in"
    LOST = "lost"
    REFUSED = "refused"


class Join(NamedTuple):
    """Ask to become a member."""

    number: int
    member_id: str
    topics: tuple[str, ...]


class Heartbeat(NamedTuple):
    """Say what is owned. `topics` is None if they are as the coordinator knows them."""

    number: int
    member_id: str
    epoch: int
    owned: frozenset[Key]
    topics: tuple[str, ...] | None


class Membership:
    """Callers hold a lock of their own. `new_id` makes a random member id."""

    def __init__(self, new_id: Callable[[], str], random: Random) -> None:
        self._new_id = new_id
        self._backoff = Backoff(random, first_s=RETRY_BACKOFF_MS_FIRST / 1000, longest_s=RETRY_S_MAX)
        self.phase = Phase.OUT
        self.member_id = NO_MEMBER
        self.epoch = NO_MEMBER_EPOCH
        self.assigned: frozenset[Key] = frozenset()
        self.held: frozenset[Key] = frozenset()
        self.topics: tuple[str, ...] = ()
        self.refusal: TailraceError | None = None
        """Why the coordinator does not take the member; ended by the next subscription."""
        self._told_topics: tuple[str, ...] | None = ()
        """What the coordinator knows; None while that is uncertain."""
        self._telling = 0
        """The number of the newest request that told topics."""
        self._number = 0
        self._in_flight = 0
        """The number of the newest request that has no answer yet, or 0."""
        self._heard = 0
        """The number of the request whose answer counts."""
        self._due = False
        """There is something to say at once, even while a heartbeat is kept."""
        self.retry_at = 0.0
        self.patient_until = 0.0
        """Till then the instance id may become free that another process has; 0 if none had it."""

    # --------------------------------------------------- from the application

    def subscribe(self, topics: Iterable[str]) -> None:
        """Be a member that reads these topics; a change is told at once."""
        self.topics = tuple(sorted(topics))
        if self.phase in (Phase.OUT, Phase.REFUSED):
            self._begin()
        elif self.phase is Phase.IN and self.topics != self._told_topics:
            self._due = True

    def hold(self, keys: Iterable[Key]) -> frozenset[Key]:
        """The application begins to take these, as far as they are still assigned; those that are."""
        taken = frozenset(keys) & self.assigned
        self.held |= taken
        return taken

    def give_up(self, keys: Iterable[Key]) -> None:
        """The application has let go of these: what is not assigned any more is free for others."""
        given = frozenset(keys) & self.held
        self.held -= given
        if self.phase is Phase.IN and given - self.assigned:
            self._due = True

    def rejoin(self) -> None:
        """After a loss, when the application has let go of everything: come back as a new member."""
        assert self.phase is Phase.LOST
        self.held = frozenset()
        self._begin()

    def lose(self) -> str:
        """Stop being a member, of one's own accord; the id that is to leave."""
        member_id = self.member_id
        if self.phase in (Phase.JOINING, Phase.IN):
            self._lost()
        return member_id

    def end(self) -> str:
        """Be no member any more, and hold nothing; the id that is to leave, NO_MEMBER if there is none."""
        member_id = self.member_id if self.phase in (Phase.JOINING, Phase.IN) else NO_MEMBER
        self._lost()
        self.phase = Phase.OUT
        self.refusal = None
        self.held = frozenset()
        return member_id

    @property
    def unapplied(self) -> bool:
        """Has the application something to do?"""
        if self.phase is Phase.IN:
            return self.assigned != self.held
        return self.phase in (Phase.LOST, Phase.REFUSED)

    # ------------------------------------------------------ for the I/O thread

    def plan(self, now: float) -> Join | Heartbeat | None:
        """What to send now: one request is on its way at any time, and one more when there is news."""
        if now < self.retry_at or (self._in_flight and not self._due):
            return None
        if self.phase is Phase.JOINING:
            if self._in_flight:
                return None
            self._sent()
            self._told_topics, self._telling = self.topics, self._number
            return Join(self._number, self.member_id, self.topics)
        if self.phase is not Phase.IN:
            return None
        self._sent()
        topics = None if self.topics == self._told_topics else self.topics
        if topics is not None:
            self._told_topics, self._telling = None, self._number
        return Heartbeat(self._number, self.member_id, self.epoch, self.assigned | self.held, topics)

    def answered(self, asked: Join | Heartbeat, epoch: int, assigned: frozenset[Key]) -> None:
        """The coordinator has spoken. An answer to an earlier membership, or with an older epoch, is void."""
        if asked.member_id != self.member_id or self.phase not in (Phase.JOINING, Phase.IN):
            return
        self._landed(asked)
        self._backoff.reset()
        self.retry_at = 0.0
        if asked.topics is not None and asked.number == self._telling:
            self._told_topics = asked.topics
        if self.phase is Phase.JOINING:
            self.phase = Phase.IN
        # Within an epoch partitions are added as others give them up: the newest request knows them all.
        if (epoch, asked.number) > (self.epoch, self._heard):
            self._heard = asked.number
            self.epoch = epoch
            self.assigned = assigned

    def failed(self, asked: Join | Heartbeat, error: TailraceError, now: float) -> None:
        """No answer, or a refusal."""
        if asked.member_id != self.member_id or self.phase not in (Phase.JOINING, Phase.IN):
            return
        self._landed(asked)
        if isinstance(error, ClosedError):
            return
        if isinstance(error, UnknownMemberError):
            self._lost()
        elif error.retriable or self.phase is Phase.IN or self._may_become_free(error, now):
            self._due = True
            if not self._in_flight:
                self.retry_at = now + self._backoff.pause()
        else:
            self._lost()
            self.phase = Phase.REFUSED
            self.refusal = error

    # ------------------------------------------------------------------ inside

    def _may_become_free(self, error: TailraceError, now: float) -> bool:
        """The instance id is another's: perhaps of a process that has just died."""
        if not isinstance(error, InstanceIdInUseError):
            return False
        self.patient_until = self.patient_until or now + INSTANCE_ID_PATIENCE_MS / 1000
        return now < self.patient_until

    def _begin(self) -> None:
        self.phase = Phase.JOINING
        self.member_id = self._new_id()
        self.epoch = NO_MEMBER_EPOCH
        self.assigned = frozenset()
        self.refusal = None
        self._in_flight = 0
        self._due = False
        self.retry_at = 0.0
        self.patient_until = 0.0

    def _lost(self) -> None:
        self.phase = Phase.LOST
        self.member_id = NO_MEMBER
        self.epoch = NO_MEMBER_EPOCH
        self.assigned = frozenset()
        self._in_flight = 0
        self._due = False

    def _sent(self) -> None:
        self._number += 1
        self._in_flight = self._number
        self._due = False

    def _landed(self, asked: Join | Heartbeat) -> None:
        if asked.number == self._in_flight:
            self._in_flight = 0
