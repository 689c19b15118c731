"""Which members have been heard of lately. Pure: time comes in as `now`, in seconds of a monotonic clock.

Soft state: after a restart every member starts a full time-out, as after a time in which the coordinator
itself stood still and heard of nobody.
"""

from typing import Final, TypeAlias

from tailrace.protocol.limits import RECONNECT_WITHIN_MS, SESSION_TIMEOUT_MS_MIN

MemberKey: TypeAlias = tuple[str, str]
"""Group id and member id."""
LOOK_S: Final = SESSION_TIMEOUT_MS_MIN / 4000
"""How often is looked for silent members: a quarter of the shortest time-out."""
_RECONNECT_S: Final = RECONNECT_WITHIN_MS / 1000


class MemberSessions:
    """Members, when each was heard of, and how long it may be silent."""

    def __init__(self, now: float) -> None:
        self._looked = now
        self._doubtful_until = now
        self._heard: dict[MemberKey, tuple[float, float]] = {}

    def hear(self, member: MemberKey, timeout_s: float, now: float) -> None:
        """The member has asked for something."""
        if not self._heard:
            self._looked = now
        self._heard[member] = (now, timeout_s)

    def end(self, member: MemberKey) -> None:
        """It is no member any more."""
        self._heard.pop(member, None)

    def spared(self, member: MemberKey, now: float) -> bool:
        """The member's connection has ended. Is that perhaps for a coordinator that stood still just before?

        Then the member, which gave up an unanswered connection, has a little time to be heard over another.
        """
        if now >= self._doubtful_until and not self._stood_still(now):
            return False
        self._heard[member] = (now, _RECONNECT_S)
        return True

    def expired(self, now: float) -> list[MemberKey]:
        """Those that were silent for too long; they stay here until `end`."""
        if self._stood_still(now):
            self._doubtful_until = now + _RECONNECT_S
            self._heard = {member: (now, timeout_s) for member, (_, timeout_s) in self._heard.items()}
        self._looked = now
        return [member for member, (heard, timeout_s) in self._heard.items() if now - heard >= timeout_s]

    def next_look(self) -> float | None:
        """When `expired` must be called at the latest; None while there are no members."""
        return self._looked + LOOK_S if self._heard else None

    def _stood_still(self, now: float) -> bool:
        return now - self._looked > 2 * LOOK_S
