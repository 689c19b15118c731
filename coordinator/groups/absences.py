"""Static members that are not there, and so may be replaced by another process of their instance id."""

from tailrace.protocol.limits import RECONNECT_WITHIN_MS

from .sessions import MemberKey


class Absences:
    """Those whose connection was seen to close; and those from before the start that have not spoken since.

    The latter have until RECONNECT_WITHIN_MS after `now`, the start.
    """

    def __init__(self, now: float) -> None:
        self._gone: set[MemberKey] = set()
        self._unheard: set[MemberKey] = set()
        self._heard_by = now + RECONNECT_WITHIN_MS / 1000

    def expect(self, member: MemberKey) -> None:
        """It is a member since before the start."""
        self._unheard.add(member)

    def gone(self, member: MemberKey) -> None:
        """Its connection has ended."""
        self._gone.add(member)

    def end(self, member: MemberKey) -> None:
        """It has spoken, or is no member any more."""
        self._gone.discard(member)
        self._unheard.discard(member)

    def is_absent(self, member: MemberKey, now: float) -> bool:
        """May another process take its place?"""
        return member in self._gone or (now >= self._heard_by and member in self._unheard)
