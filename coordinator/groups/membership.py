"""What becomes of a group's members: pure functions of a group that return changes.

Nobody gets a partition that another may still hold: `Group.owners` names who may, and that ends only
when the member says, in the epoch that took the partition away, that it has given it up, or is no
member any more.
"""

from collections.abc import Collection, Iterator, Mapping

from msgspec.structs import replace

from tailrace.protocol.cluster import ClusterState

from .assignors import ASSIGNORS, Target, Wish, choose
from .changes import Grant, MemberRow
from .state import Group, Key, Member


def target_of(group: Group, cluster: ClusterState, before: Target) -> Target:
    """Who should have what now. `before` is the target so far: what is on its way need not turn back."""
    topic_ids = cluster.topic_ids
    members = {}
    for member_id, member in group.members.items():
        row = member.row
        topics = frozenset(topic_ids[name] for name in row.topics if name in topic_ids)
        held = before.get(member_id, member.assigned)
        members[member_id] = Wish(row.instance_id or member_id, topics, held)
    wanted = frozenset().union(*(wish.topics for wish in members.values()))
    assign = ASSIGNORS[choose(member.row.assignor for member in group.members.values())]
    return assign(members, {topic_id: len(cluster.topics[topic_id].partitions) for topic_id in wanted})


def settled(group: Group, target: Target) -> bool:
    """Was everybody told, and does everybody have, exactly what it should have?"""
    return all(
        member.row.epoch > 0 and not member.revoking and member.assigned.keys() == target[member_id]
        for member_id, member in group.members.items()
    )


def reconcile(group: Group, target: Target) -> Iterator[MemberRow]:
    """The rows of the members that must be told something else than before. Apply each before the next.

    What a member should not have is taken away, and what it should have and nobody owns is given to it.
    """
    epoch = group.row.epoch
    for member_id, member in list(group.members.items()):
        wanted, assigned = target[member_id], member.assigned
        if member.row.epoch and wanted == assigned.keys():
            continue
        leaving = {key: since for key, since in assigned.items() if key not in wanted}
        granted = [key for key in wanted if key not in assigned and key not in group.owners]
        if leaving or granted or not member.row.epoch:
            kept = {key: since for key, since in assigned.items() if key in wanted}
            kept |= dict.fromkeys(sorted(granted), epoch)
            yield with_grants(member, epoch, kept, member.revoking | leaving)


def release(member: Member, epoch: int, owned: Collection[Key]) -> MemberRow | None:
    """The member's row when it owns no more than `owned`, which it said in `epoch`; None if nothing is free.

    In an older epoch it has not heard yet what it lost: then it may still take what it was told before.
    """
    if epoch != member.row.epoch or not member.revoking:
        return None
    kept = {key: since for key, since in member.revoking.items() if key in owned}
    return None if len(kept) == len(member.revoking) else with_grants(member, epoch, member.assigned, kept)


def take_over(holder: Member, row: MemberRow) -> MemberRow:
    """The row of a new member that is the same instance as one that is gone: it has what that had."""
    return replace(row, epoch=holder.row.epoch, assigned=holder.row.assigned)


def with_grants(member: Member, epoch: int, assigned: dict[Key, int], revoking: dict[Key, int]) -> MemberRow:
    """The member's row with other partitions."""
    return replace(member.row, epoch=epoch, assigned=_grants(assigned), revoking=_grants(revoking))


def _grants(keys: Mapping[Key, int]) -> tuple[Grant, ...]:
    return tuple((topic_id, partition, epoch) for (topic_id, partition), epoch in keys.items())
