"""Over which connection each member was heard last."""

from .sessions import MemberKey


class MemberConnections:
    """Members by connection. A member that is heard over another one belongs to that."""

    def __init__(self) -> None:
        self._members: dict[bytes, set[MemberKey]] = {}
        self._peers: dict[MemberKey, bytes] = {}

    def hear(self, peer: bytes, member: MemberKey) -> None:
        """The member has asked for something over the connection `peer`."""
        if self._peers.get(member) != peer:
            self.forget(member)
            self._peers[member] = peer
            self._members.setdefault(peer, set()).add(member)

    def forget(self, member: MemberKey) -> None:
        """It is no member any more."""
        peer = self._peers.pop(member, None)
        if peer is not None:
            self._members[peer].discard(member)
            if not self._members[peer]:
                del self._members[peer]

    def closed(self, peer: bytes) -> set[MemberKey]:
        """The connection has ended: the members that were heard over it last."""
        members = self._members.pop(peer, set())
        for member in members:
            del self._peers[member]
        return members
