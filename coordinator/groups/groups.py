"""The groups' machine: requests come in one by one, and are answered together by `settle`.

What many ask at once is decided once: members that join in one burst cause one rebalance. Pure: time
comes in as `now` (seconds, monotonic) and `wall_ms` (milliseconds since 1970, for what is stored).
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from tailrace.protocol.cluster import ClusterState
from tailrace.protocol.errors import (
    GroupNotEmptyError,
    LimitExceededError,
    ShuttingDownError,
    TailraceError,
    UnknownGroupError,
    UnknownMemberError,
)
from tailrace.protocol.group_messages import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupDeleted,
    GroupHeartbeat,
    GroupLeft,
    GroupRequest,
    GroupsListed,
    JoinGroup,
    LeaveGroup,
    ListGroups,
)
from tailrace.protocol.limits import GROUP_STORE_ROWS_BYTES_MAX, GROUPS_MAX, MEMBERS_PER_GROUP_MAX
from tailrace.protocol.messages import Reply
from tailrace.protocol.partition_sets import keys_of
from tailrace.protocol.similar import did_you_mean
from tailrace.protocol.text import plural
from tailrace.protocol.wire import failure

from . import descriptions, membership, offsets
from .absences import Absences
from .assignors import Target
from .changes import (
    NEVER,
    ConsumerGroup,
    GroupChange,
    GroupChanged,
    GroupRemoved,
    MemberChanged,
    MemberRemoved,
    MemberRow,
    OffsetDropped,
)
from .checks import check_group_id, check_join, check_room, instance_in_use
from .connections import MemberConnections
from .sessions import MemberKey, MemberSessions
from .state import Group, GroupsState, Member
from .waiting import Kept, Waiting

EXPIRY_INTERVAL_S: Final = 60.0
"""How often is looked for offsets that have expired."""


class Groups:
    """All groups: what is stored, and the sessions, waiting heartbeats and targets, which are not."""

    def __init__(
        self, state: GroupsState, cluster: ClusterState, *, offsets_retention_ms: int, now: float
    ) -> None:
        self.state = state
        self._cluster = cluster
        self._offsets_retention_ms = offsets_retention_ms
        self._changes: list[GroupChange] = []
        self._answers: list[tuple[bytes, Reply]] = []
        self._sessions = MemberSessions(now)
        self._connections = MemberConnections()
        self._absences = Absences(now)
        self._waiting = Waiting()
        self._targets: dict[str, Target] = {}
        self._dirty: set[str] = set()
        """Groups that may need another target."""
        self._freed: set[str] = set()
        """Groups in which partitions have become free."""
        self._expire_at = now
        for group_id, group in state.groups.items():
            if group.members:
                self._dirty.add(group_id)
            for member in group.members.values():
                member_key = (group_id, member.row.member_id)
                self._sessions.hear(member_key, _timeout_s(member.row), now)
                if member.row.instance_id:
                    self._absences.expect(member_key)
        named = {topic_id for group in state.groups.values() for topic_id, _ in group.offsets}
        self.topics_changed(named - cluster.topics.keys())  # deleted as the last coordinator was killed

    # ------------------------------------------------------------------ events

    def ask(self, peer: bytes, request: GroupRequest, now: float, wall_ms: int) -> None:
        """A request; its answer comes from a later `settle`, for most from the next."""
        try:
            match request:
                case GroupHeartbeat():
                    self._heartbeat(peer, request, now)
                case CommitOffsets():
                    self._commit(peer, request, now, wall_ms)
                case JoinGroup():
                    self._join(peer, request, now)
                case LeaveGroup():
                    self._leave(peer, request)
                case FetchOffsets():
                    group = self.state.groups.get(request.group_id)
                    self._answers.append((peer, offsets.fetch(group, request)))
                case ListGroups():
                    self._list(peer, request)
                case DescribeGroup():
                    self._describe(peer, request)
                case DeleteGroup():
                    self._delete(peer, request)
        except TailraceError as error:
            self._answers.append((peer, failure(request.request_id, error)))

    def gone(self, peers: Iterable[bytes], now: float) -> None:
        """Connections have ended. May be told again of the same ones."""
        for peer in peers:
            for member_key in self._connections.closed(peer):
                self._waiting.drop(member_key)
                if self._member(member_key).row.instance_id:
                    self._absences.gone(member_key)
                elif not self._sessions.spared(member_key, now):
                    self._remove(member_key)

    def topics_changed(self, topic_ids: Iterable[bytes]) -> None:
        """Topics were made, deleted, or have more partitions."""
        changed = set(topic_ids)
        gone = changed - self._cluster.topics.keys()
        names = {self._cluster.topics[t].name for t in changed - gone}
        for group_id, group in self.state.groups.items():
            if any(not names.isdisjoint(member.row.topics) for member in group.members.values()):
                self._dirty.add(group_id)
        for group_id, group in list(self.state.groups.items() if gone else ()):
            dropped = [key for key in group.offsets if key[0] in gone]
            for topic_id, partition in dropped:
                self._apply(OffsetDropped(group_id, topic_id, partition))
            if dropped or any(key[0] in gone for key in group.owners):
                self._dirty.add(group_id)

    def tick(self, now: float, wall_ms: int) -> list[str]:
        """Time has passed; what is worth a line in the log."""
        silent = self._sessions.expired(now)
        for member_key in silent:
            self._remove(member_key)
        self._waiting.pass_time(now)
        if now >= self._expire_at:
            self._expire_at = now + EXPIRY_INTERVAL_S
            before_ms = wall_ms - self._offsets_retention_ms
            for group_id, group in list(self.state.groups.items()):
                for dropped in offsets.expired(group_id, group, before_ms):
                    self._apply(dropped)
                    self._dirty.add(group_id)
        return [
            f"group {group_id}: member {member_id} was silent for too long" for group_id, member_id in silent
        ]

    def stop(self) -> list[tuple[bytes, Reply]]:
        """The coordinator ends: those who wait are told to ask again, wherever it is then."""
        error = ShuttingDownError("the coordinator is stopping; ask again")
        return [(kept.peer, failure(kept.request_id, error)) for kept in self._waiting.drop_all()]

    def next_tick(self) -> float:
        """When `tick` must be called at the latest."""
        look = self._sessions.next_look()
        return self._expire_at if look is None else min(look, self._expire_at)

    def settle(self, now: float, wall_ms: int) -> tuple[tuple[GroupChange, ...], list[tuple[bytes, Reply]]]:
        """Rebalance what needs it: the changes to store, then the answers to give, since the last call."""
        for group_id in self._dirty:
            self._rebalance(group_id, wall_ms)
        for group_id in self._dirty | self._freed:
            self._reconcile(group_id)
        self._dirty.clear()
        self._freed.clear()
        self._answers += self._waiting.answers(self._member, now)
        changes, self._changes = tuple(self._changes), []
        answers, self._answers = self._answers, []
        return changes, answers

    # ---------------------------------------------------------------- requests

    def _join(self, peer: bytes, request: JoinGroup, now: float) -> None:
        check_join(request)
        group_id = request.group_id
        group = self.state.groups.get(group_id)
        if group is None or request.member_id not in group.members:
            group = self._admit(request, group, now)
        elif request.topics != (row := group.members[request.member_id].row).topics:
            check_room(self.state, group_id, changed := replace(row, topics=request.topics))
            self._apply(MemberChanged(group_id, changed))
        member_key = (group_id, request.member_id)
        member = group.members[request.member_id]
        self._heard(peer, member_key, member.row, now)
        self._waiting.keep(member_key, Kept(peer, request.request_id, -1, frozenset(), now))
        self._dirty.add(group_id)

    def _admit(self, request: JoinGroup, group: Group | None, now: float) -> Group:
        """A new member of a group, which is made if it is not there."""
        group_id = request.group_id
        row = MemberRow(
            request.member_id,
            request.instance_id,
            request.client_id,
            request.host,
            request.topics,
            request.assignor,
            request.session_timeout_ms,
        )
        check_room(self.state, group_id, row)
        if group is None:
            group = self._make_group(group_id, ConsumerGroup())
        holder = group.instance(request.instance_id)
        if holder is not None:
            row = self._replace(group_id, holder, row, now)
        elif len(group.members) >= MEMBERS_PER_GROUP_MAX:
            raise LimitExceededError(
                f"group {group_id!r} has {MEMBERS_PER_GROUP_MAX} members, which is the most"
            )
        elif not group.members and group.row.empty_since_ms != NEVER:
            self._apply(GroupChanged(group_id, replace(group.row, empty_since_ms=NEVER)))
        self._apply(MemberChanged(group_id, row))
        return group

    def _replace(self, group_id: str, holder: Member, row: MemberRow, now: float) -> MemberRow:
        """Another process is the static member now, if the one that was it is gone (KIP-345)."""
        held_by = holder.row
        if not self._absences.is_absent((group_id, held_by.member_id), now):
            raise instance_in_use(group_id, held_by)
        taken = membership.take_over(holder, row)
        self._forget((group_id, held_by.member_id))
        targets = self._targets.get(group_id, {})
        if held_by.member_id in targets:
            targets[row.member_id] = targets.pop(held_by.member_id)
        self._apply(MemberRemoved(group_id, held_by.member_id))
        self._freed.add(group_id)
        return taken

    def _heartbeat(self, peer: bytes, request: GroupHeartbeat, now: float) -> None:
        member_key = (request.group_id, request.member_id)
        member = self._member(member_key)
        row = member.row
        if request.member_epoch > row.epoch:
            raise UnknownMemberError(
                f"member {row.member_id} is in epoch {row.epoch}, not in {request.member_epoch}: join anew"
            )
        self._heard(peer, member_key, row, now)
        owned = frozenset(keys_of(request.owned))
        released = membership.release(member, request.member_epoch, owned)
        if released is not None:
            self._apply(MemberChanged(request.group_id, released))
            self._freed.add(request.group_id)
        if request.topics is not None and request.topics != row.topics:
            changed = replace(self._member(member_key).row, topics=request.topics)
            check_room(self.state, request.group_id, changed)
            self._apply(MemberChanged(request.group_id, changed))
            self._dirty.add(request.group_id)
        until = now + min(request.max_wait_ms, row.session_timeout_ms // 2) / 1000
        self._waiting.keep(member_key, Kept(peer, request.request_id, request.member_epoch, owned, until))

    def _commit(self, peer: bytes, request: CommitOffsets, now: float, wall_ms: int) -> None:
        group = self.state.groups.get(request.group_id)
        if group is None:
            check_group_id(request.group_id)
            group = Group(ConsumerGroup())
        room_bytes = GROUP_STORE_ROWS_BYTES_MAX - self.state.stored_bytes
        changes, reply = offsets.commit(group, request, self._cluster, wall_ms, room_bytes)
        if changes and request.group_id not in self.state.groups:
            self._make_group(request.group_id, ConsumerGroup(empty_since_ms=wall_ms))
        for change in changes:
            self._apply(change)
        if (member := group.members.get(request.member_id)) is not None:
            self._sessions.hear((request.group_id, request.member_id), _timeout_s(member.row), now)
        self._answers.append((peer, reply))

    def _leave(self, peer: bytes, request: LeaveGroup) -> None:
        group = self.state.groups.get(request.group_id)
        if group is not None and request.member_id in group.members:
            self._remove((request.group_id, request.member_id))
        self._answers.append((peer, GroupLeft(request.request_id)))

    def _list(self, peer: bytes, request: ListGroups) -> None:
        infos = tuple(
            descriptions.info(group_id, group, settled=self._is_settled(group_id))
            for group_id, group in sorted(self.state.groups.items())
        )
        self._answers.append((peer, GroupsListed(request.request_id, groups=infos)))

    def _describe(self, peer: bytes, request: DescribeGroup) -> None:
        group = self._existing(request.group_id)
        settled = self._is_settled(request.group_id)
        self._answers.append((peer, descriptions.describe(request, group, settled=settled)))

    def _delete(self, peer: bytes, request: DeleteGroup) -> None:
        if members := self._existing(request.group_id).members:
            raise GroupNotEmptyError(
                f"group {request.group_id!r} has {plural(len(members), 'member')}: "
                "stop them before it is deleted"
            )
        self._drop_group(request.group_id)
        self._answers.append((peer, GroupDeleted(request.request_id)))

    # ----------------------------------------------------------------- members

    def _heard(self, peer: bytes, member_key: MemberKey, row: MemberRow, now: float) -> None:
        self._sessions.hear(member_key, _timeout_s(row), now)
        self._absences.end(member_key)
        self._connections.hear(peer, member_key)

    def _remove(self, member_key: MemberKey) -> None:
        """It is no member any more; who waits for it is told when it asks again."""
        group_id, member_id = member_key
        waiting = self._forget(member_key)
        if waiting is not None:
            error = UnknownMemberError(f"group {group_id!r} has no member {member_id!r} any more: join anew")
            self._answers.append((waiting.peer, failure(waiting.request_id, error)))
        self._apply(MemberRemoved(group_id, member_id))
        self._dirty.add(group_id)

    def _forget(self, member_key: MemberKey) -> Kept | None:
        """Drop what is known of it beside the state; the request that it waits for."""
        self._sessions.end(member_key)
        self._absences.end(member_key)
        self._connections.forget(member_key)
        return self._waiting.drop(member_key)

    def _member(self, member_key: MemberKey) -> Member:
        group_id, member_id = member_key
        group = self.state.groups.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if member is None:
            raise UnknownMemberError(f"group {group_id!r} has no member {member_id!r}: join anew")
        return member

    # ------------------------------------------------------------------ groups

    def _rebalance(self, group_id: str, wall_ms: int) -> None:
        group = self.state.groups.get(group_id)
        if group is None:
            return
        if not group.members:
            self._targets.pop(group_id, None)
            if not group.offsets:
                self._drop_group(group_id)
            elif group.row.empty_since_ms == NEVER:
                self._apply(GroupChanged(group_id, replace(group.row, empty_since_ms=wall_ms)))
            return
        before = self._targets.get(group_id)
        target = membership.target_of(group, self._cluster, before or {})
        self._targets[group_id] = target
        # A coordinator that has just started knows no target from before: what members have was it.
        if target != before and not (before is None and membership.settled(group, target)):
            self._apply(GroupChanged(group_id, replace(group.row, epoch=group.row.epoch + 1)))

    def _reconcile(self, group_id: str) -> None:
        group = self.state.groups.get(group_id)
        if group is None or not group.members:
            return
        for row in membership.reconcile(group, self._targets[group_id]):
            self._apply(MemberChanged(group_id, row))
            self._waiting.changed((group_id, row.member_id))

    def _is_settled(self, group_id: str) -> bool:
        target = self._targets.get(group_id, {})
        group = self.state.groups[group_id]
        return target.keys() == group.members.keys() and membership.settled(group, target)

    def _existing(self, group_id: str) -> Group:
        group = self.state.groups.get(group_id)
        if group is None:
            raise UnknownGroupError(
                f"there is no group {group_id!r}{did_you_mean(group_id, self.state.groups, 3)}"
            )
        return group

    def _make_group(self, group_id: str, row: ConsumerGroup) -> Group:
        if len(self.state.groups) >= GROUPS_MAX:
            raise LimitExceededError(f"there are {GROUPS_MAX} groups, which is the most that is possible")
        self._apply(GroupChanged(group_id, row))
        return self.state.groups[group_id]

    def _drop_group(self, group_id: str) -> None:
        self._apply(GroupRemoved(group_id))
        self._targets.pop(group_id, None)

    def _apply(self, change: GroupChange) -> None:
        self.state.apply(change)
        self._changes.append(change)


def _timeout_s(row: MemberRow) -> float:
    return row.session_timeout_ms / 1000
