"""A coordinator's part in one group, as short as it can be: enough to hold members against."""

from dataclasses import dataclass, field

from tailrace.consumer.group.membership import Heartbeat, Join, Key
from tailrace.protocol.errors import UnknownMemberError


@dataclass
class ModelMember:
    """What the coordinator knows of a member."""

    topics: tuple[str, ...]
    epoch: int = 0
    assigned: set[Key] = field(default_factory=set)
    revoking: set[Key] = field(default_factory=set)


class ModelGroup:
    """Assigns by turns. `tell` answers a request with the epoch and the assignment, or raises."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys = keys
        self.epoch = 0
        self.members: dict[str, ModelMember] = {}
        self.target: dict[str, set[Key]] = {}

    def tell(self, request: Join | Heartbeat) -> tuple[int, frozenset[Key]]:
        if isinstance(request, Join):
            if request.member_id not in self.members:
                self.members[request.member_id] = ModelMember(request.topics)
                self.rebalance()
        else:
            member = self.members.get(request.member_id)
            if member is None or request.epoch > member.epoch:
                raise UnknownMemberError("no such member")
            if request.epoch == member.epoch:
                member.revoking &= request.owned
        self.reconcile()
        member = self.members[request.member_id]
        return member.epoch, frozenset(member.assigned)

    def remove(self, member_id: str) -> None:
        if self.members.pop(member_id, None) is not None:
            self.rebalance()
            self.reconcile()

    def rebalance(self) -> None:
        self.epoch += 1
        ids = sorted(self.members)
        self.target = {member_id: set(self.keys[number :: len(ids)]) for number, member_id in enumerate(ids)}

    def reconcile(self) -> None:
        for member_id, member in self.members.items():
            taken = member.assigned - self.target[member_id]
            member.assigned -= taken
            member.revoking |= taken
            if taken:
                member.epoch = self.epoch
        for member_id, member in self.members.items():
            free = self.target[member_id] - member.assigned - self.owned()
            member.assigned |= free
            if free or member.epoch == 0:
                member.epoch = self.epoch

    def owned(self) -> set[Key]:
        return {key for member in self.members.values() for key in member.assigned | member.revoking}
