"""Members as clients are, a network that loses answers, and a coordinator that may restart; no sockets.

The members' side is the client's own decider (`tailrace.consumer.group.membership`).
"""

from itertools import count
from random import Random
from typing import Any

from tailrace.consumer.group.membership import Heartbeat, Join, Membership, Phase
from tailrace.coordinator.groups.groups import Groups
from tailrace.coordinator.groups.state import GroupsState, Key
from tailrace.protocol.cluster import (
    ClusterState,
    PartitionInfo,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)
from tailrace.protocol.errors import ConnectionFailedError, UnknownMemberError, error_from
from tailrace.protocol.group_messages import (
    CommitOffsets,
    GroupAssigned,
    GroupHeartbeat,
    JoinGroup,
    LeaveGroup,
    OffsetCommit,
)
from tailrace.protocol.messages import Failed, Reply
from tailrace.protocol.partition_sets import keys_of, partition_set

GROUP = "g"
TIMEOUT_MS = 6_000
RETENTION_MS = 3_600_000
TOPICS = {"a": b"a" * 16, "b": b"b" * 16, "c": b"c" * 16}


class Client:
    """A consumer process: its decider, and its connection."""

    def __init__(
        self, number: int, topics: tuple[str, ...], instance_id: str = "", assignor: str = "uniform"
    ) -> None:
        self.number = number
        self.instance_id = instance_id
        self.assignor = assignor
        self.ids = (f"m{number}-{attempt}" for attempt in count())
        self.membership = Membership(lambda: next(self.ids), Random(number))
        self.membership.subscribe(topics)
        self.connections = count()
        self.peer = b""
        self.frozen = False
        """It does nothing, as under SIGSTOP."""
        self.told: frozenset[Key] | None = None
        """What the application is putting into practice: it gives up slowly, and hears no more meanwhile."""
        self.connect()

    def connect(self) -> None:
        self.peer = f"p{self.number}-{next(self.connections)}".encode()

    def begin_to_apply(self) -> None:
        """The application asks for records: it hears of its assignment."""
        if self.membership.phase is Phase.IN:
            self.told = self.membership.assigned

    def apply(self) -> None:
        """What the application does when it asks for records, or the rest of it."""
        membership = self.membership
        told, self.told = self.told, None
        if membership.phase is Phase.LOST:
            membership.rejoin()
        elif membership.phase is Phase.IN:
            told = membership.assigned if told is None else told
            membership.give_up(membership.held - told)
            membership.hold(told - membership.held)


class World:
    """Time, topics, the coordinator and the clients."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cluster = ClusterState()
        self.disk = GroupsState()
        self.groups = Groups(GroupsState(), self.cluster, offsets_retention_ms=RETENTION_MS, now=0.0)
        self.clients: list[Client] = []
        self.numbers = count(1)
        self.request_ids = count(1)
        self.sent: dict[int, tuple[Client, Join | Heartbeat, bytes]] = {}
        self.replies: dict[int, Reply] = {}
        """Of other requests."""
        self.losing = False
        """Answers are lost; the connections are, too, a little later."""

    @property
    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now * 1000)

    # ------------------------------------------------------------------ topics

    def set_topic(self, name: str, partitions: int) -> None:
        infos = tuple(PartitionInfo((1,), 1, 0, 0, (1,)) for _ in range(partitions))
        self.cluster.apply_all([TopicChanged(TopicInfo(TOPICS[name], name, TopicConfig(), infos))])
        self.groups.topics_changed([TOPICS[name]])
        self.settle()

    def delete_topic(self, name: str) -> None:
        self.cluster.apply_all([TopicRemoved(TOPICS[name])])
        self.groups.topics_changed([TOPICS[name]])
        self.settle()

    # ----------------------------------------------------------------- clients

    def start(self, topics: tuple[str, ...], instance_id: str = "", assignor: str = "uniform") -> Client:
        client = Client(next(self.numbers), topics, instance_id, assignor)
        self.clients.append(client)
        return client

    def stop(self, client: Client) -> None:
        """It ends cleanly."""
        member_id = client.membership.end()
        self.clients.remove(client)
        if member_id:
            self.ask(client, LeaveGroup, group_id=GROUP, member_id=member_id)

    def kill(self, client: Client) -> None:
        """kill -9: the connection closes."""
        self.clients.remove(client)
        self.groups.gone([client.peer], self.now)
        self.settle()

    def ask(self, client: Client, kind: type[Any], **fields: Any) -> Reply:
        """A request whose answer comes at once."""
        request_id = next(self.request_ids)
        self.groups.ask(client.peer, kind(request_id, **fields), self.now, self.wall_ms)
        self.settle()
        return self.replies.pop(request_id)

    def commit(self, client: Client, key: Key, offset: int, **other: Any) -> Reply:
        membership = client.membership
        fields = {"member_id": membership.member_id, "member_epoch": membership.epoch} | other
        return self.ask(
            client, CommitOffsets, group_id=GROUP, offsets=(OffsetCommit(*key, offset),), **fields
        )

    def send(self, client: Client) -> bool:
        """Send what the client has to say; False if that is nothing."""
        asked = None if client.frozen else client.membership.plan(self.now)
        if asked is None:
            return False
        request_id = next(self.request_ids)
        self.sent[request_id] = (client, asked, client.peer)
        request: JoinGroup | GroupHeartbeat
        if isinstance(asked, Join):
            request = JoinGroup(
                request_id,
                group_id=GROUP,
                member_id=asked.member_id,
                instance_id=client.instance_id,
                client_id=f"client-{client.number}",
                topics=asked.topics,
                assignor=client.assignor,
                session_timeout_ms=TIMEOUT_MS,
            )
        else:
            request = GroupHeartbeat(
                request_id,
                group_id=GROUP,
                member_id=asked.member_id,
                member_epoch=asked.epoch,
                owned=partition_set(asked.owned),
                topics=asked.topics,
                max_wait_ms=TIMEOUT_MS // 3,
            )
        self.groups.ask(client.peer, request, self.now, self.wall_ms)
        return True

    def disconnect(self, client: Client) -> None:
        """The client sees its connection end, and makes a new one; the coordinator has not seen it yet."""
        old = client.peer
        client.connect()
        for request_id, (sender, asked, peer) in list(self.sent.items()):
            if sender is client and peer == old:
                del self.sent[request_id]
                client.membership.failed(asked, ConnectionFailedError("the connection is gone"), self.now)

    # ------------------------------------------------------------- coordinator

    def settle(self) -> None:
        """Store, then answer."""
        changes, answers = self.groups.settle(self.now, self.wall_ms)
        for change in changes:
            self.disk.apply(change)
        for peer, reply in answers:
            if reply.request_id not in self.sent:
                self.replies[reply.request_id] = reply
                continue
            client, asked, sent_over = self.sent[reply.request_id]
            assert peer == sent_over
            if self.losing or client.frozen or peer != client.peer or client not in self.clients:
                continue
            del self.sent[reply.request_id]
            if isinstance(reply, GroupAssigned):
                client.membership.answered(asked, reply.member_epoch, frozenset(keys_of(reply.assigned)))
            else:
                assert isinstance(reply, Failed)
                error = error_from(reply.error.code, reply.error.message)
                client.membership.failed(asked, error, self.now)
        self.check()

    def restart(self) -> None:
        """The coordinator is killed and started again; all connections end."""
        self.groups = Groups(self.disk, self.cluster, offsets_retention_ms=RETENTION_MS, now=self.now)
        stored = GroupsState()
        for row in self.disk.rows():
            stored.apply(row)
        self.disk = stored
        for client in self.clients:
            self.disconnect(client)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        """In steps as the coordinator's loop makes them."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.25)
            self.groups.tick(self.now, self.wall_ms)
            self.settle()
            for client in self.clients:
                self.send(client)
            self.settle()

    def calm(self) -> None:
        """Everybody acts until nothing is left to do."""
        self.losing = False
        for _ in range(200):
            busy = False
            for client in self.clients:
                if client.frozen:
                    continue
                busy |= client.membership.unapplied and client.membership.phase is not Phase.REFUSED
                client.apply()
                busy |= self.send(client)
            self.settle()
            if not busy:
                return
            self.now += 0.01
        raise AssertionError("the group does not come to rest")

    # ------------------------------------------------------------------ checks

    def members(self) -> dict[str, Client]:
        """The clients that the coordinator takes for members."""
        group = self.groups.state.groups.get(GROUP)
        known = {} if group is None else group.members
        return {c.membership.member_id: c for c in self.clients if c.membership.member_id in known}

    def check(self) -> None:
        """Nobody holds what another member may hold; what is stored is what is known."""
        holders: dict[Key, str] = {}
        for member_id, client in self.members().items():
            for key in client.membership.held | client.membership.assigned:
                assert key not in holders, f"{key} is held by {member_id} and {holders[key]}"
                holders[key] = member_id
        if self.disk is not self.groups.state:
            ours, stored = sorted(map(repr, self.groups.state.rows())), sorted(map(repr, self.disk.rows()))
            assert ours == stored

    def check_calm(self) -> None:
        """Every partition that somebody subscribes to is read by one client."""
        members = self.members()
        wanted = {
            (TOPICS[name], partition)
            for client in members.values()
            for name in client.membership.topics
            if TOPICS[name] in self.cluster.topics
            for partition in range(len(self.cluster.topics[TOPICS[name]].partitions))
        }
        held = [key for client in members.values() for key in client.membership.held]
        assert sorted(held) == sorted(wanted)
        alike = {(client.membership.topics, client.assignor) for client in members.values()}
        if len(alike) == 1 and ("uniform" in {assignor for _, assignor in alike}):
            loads = [len(client.membership.held) for client in members.values()]
            assert max(loads) - min(loads) <= 1


__all__ = ["GROUP", "TIMEOUT_MS", "TOPICS", "Client", "UnknownMemberError", "World"]
