"""What is told about groups."""

from tailrace.protocol.group_messages import DescribeGroup, GroupDescribed, GroupInfo, MemberInfo
from tailrace.protocol.partition_sets import partition_set

from .assignors import choose
from .state import Group, Member


def info(group_id: str, group: Group, *, settled: bool) -> GroupInfo:
    """One line of a list. `settled`: everybody has what it should have."""
    state = ("stable" if settled else "reconciling") if group.members else "empty"
    return GroupInfo(group_id, "consumer", state, len(group.members), group.row.epoch)


def describe(request: DescribeGroup, group: Group, *, settled: bool) -> GroupDescribed:
    """The group and its members, in the order of their ids."""
    members = sorted(group.members.values(), key=lambda member: member.row.member_id)
    return GroupDescribed(
        request.request_id,
        group=info(request.group_id, group, settled=settled),
        assignor=choose(member.row.assignor for member in members) if members else "",
        members=tuple(map(_member, members)),
    )


def _member(member: Member) -> MemberInfo:
    row = member.row
    return MemberInfo(
        row.member_id,
        row.instance_id,
        row.client_id,
        row.host,
        row.epoch,
        row.topics,
        partition_set(member.assigned),
        partition_set(member.revoking),
    )
