"""Requests of members that are not answered yet: a heartbeat is kept until there is something to tell."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tailrace.protocol.group_messages import GroupAssigned
from tailrace.protocol.messages import Reply
from tailrace.protocol.partition_sets import partition_set

from .sessions import MemberKey
from .state import Key, Member


class Kept(NamedTuple):
    """A request of a member that said it is in `epoch` and owns `owned`. Kept to `until` at the latest."""

    peer: bytes
    request_id: int
    epoch: int
    owned: frozenset[Key]
    until: float

    def is_news(self, member: Member, now: float) -> bool:
        """Does the member have other partitions than it said, or has it waited long enough?"""
        if self.until <= now or self.epoch != member.row.epoch:
            return True
        return not member.assigned.keys() <= self.owned


class Waiting:
    """The newest request of each member, and those that a newer one has overtaken."""

    def __init__(self) -> None:
        self._kept: dict[MemberKey, Kept] = {}
        self._overtaken: list[tuple[MemberKey, Kept]] = []
        self._changed: set[MemberKey] = set()

    def keep(self, member: MemberKey, kept: Kept) -> None:
        """Answer it when there is news; the one before it at the next look."""
        older = self._kept.get(member)
        if older is not None:
            self._overtaken.append((member, older))
        self._kept[member] = kept
        self._changed.add(member)

    def changed(self, member: MemberKey) -> None:
        """It has other partitions than before."""
        self._changed.add(member)

    def drop(self, member: MemberKey) -> Kept | None:
        """It is no member any more, or cannot be answered; the request that it waits for."""
        self._overtaken = [entry for entry in self._overtaken if entry[0] != member]
        return self._kept.pop(member, None)

    def drop_all(self) -> list[Kept]:
        """Nobody waits any more; those who did."""
        kept = [*(kept for _, kept in self._overtaken), *self._kept.values()]
        self._overtaken.clear()
        self._kept.clear()
        return kept

    def pass_time(self, now: float) -> None:
        """Look at those that have waited long enough."""
        self._changed.update(member for member, kept in self._kept.items() if kept.until <= now)

    def answers(self, find: Callable[[MemberKey], Member], now: float) -> Iterator[tuple[bytes, Reply]]:
        """What is to be told now."""
        for key, kept in self._overtaken:
            yield _answer(kept, find(key))
        for key in self._changed & self._kept.keys():
            kept, member = self._kept[key], find(key)
            if kept.is_news(member, now):
                del self._kept[key]
                yield _answer(kept, member)
        self._overtaken.clear()
        self._changed.clear()


def _answer(kept: Kept, member: Member) -> tuple[bytes, Reply]:
    assigned = partition_set(member.assigned)
    return kept.peer, GroupAssigned(kept.request_id, member_epoch=member.row.epoch, assigned=assigned)
