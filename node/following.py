"""Makes the node do what the cluster state says: from a change of the state to open logs, and back.

Belongs to the network thread. A partition that is not led any more is refused from the moment the
state says so; one that is led anew is served once the writer has opened its log and recorded the
leader epoch. Logs of topics that the state does not know are left alone; one of a known topic goes
once the partition is held by others.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from tailrace.protocol.errors import TailraceError
from tailrace.protocol.text import plural

from .actions import Follow
from .assignment import Assignment, Plan
from .leaders import Leaders, Led
from .membership import Membership
from .replication.copying import Source
from .storage.environment import Storage
from .storage.partition_log import PartitionKey, PartitionLog
from .work import Prepare, Prepared, Role
from .writer import Writer

REOPEN_S: Final = 1.0
"""A log that could not be made, or let go, for lack of room is tried again after this time."""

_RETRIABLE: Final = attrgetter("retriable")
_KEY: Final = itemgetter(0)

logger: Final = logging.getLogger(__name__)


class Begun(NamedTuple):
    """Partitions that are led, and followed, from now on."""

    led: dict[PartitionKey, Led]
    followed: dict[PartitionKey, tuple[PartitionLog, Source]]


class Following:
    """See the module."""

    def __init__(
        self, node_id: int, membership: Membership, leaders: Leaders, writer: Writer, storage: Storage
    ) -> None:
        self._membership = membership
        self._leaders = leaders
        self._writer = writer
        self._storage = storage
        self._assignment = Assignment(node_id)
        self._unopened: dict[PartitionKey, TailraceError] = {}
        """Partitions that are wanted here, and why they could not be opened."""
        self._unreleased: dict[PartitionKey, int] = {}
        """Those that are others' now, and since when; their logs could not go yet."""
        self._told: Counter[type[TailraceError]] = Counter()
        """How many of them the operator knows of, by kind of error."""
        self._reopen_at = inf
        self._unknown_logged = False

    def follow(self, action: Follow) -> Plan:
        """The state moved on. Returns what changes here: from now on for what ends, later for what begins."""
        cluster = self._membership.cluster
        logs = self._storage.logs
        plan = self._assignment.follow(cluster, action.touched, action.deleted, logs)
        self._name(log for key in (*plan.roles, *plan.released) if (log := logs.get(key)) is not None)
        self._leaders.resign(plan.resign)
        self._leaders.deleted(plan.drop)
        # From now on, not when the log is open: a registration in between has to ask about it.
        held = self._membership.held_topics
        held.difference_update(plan.drop)
        held.update(topic_id for topic_id, _ in plan.roles)
        if not self._unknown_logged:
            self._unknown_logged = True
            self._log_unknown(cluster.topics.keys() | set(plan.drop))
        epoch = self._membership.controller_epoch
        self._writer.submit(
            Prepare(cluster.version, epoch, plan.drop, plan.roles, plan.configs, released=plan.released)
        )
        return plan

    def prepared(self, prepared: Prepared, now: float) -> Begun:
        """The writer is done with a version. Returns what is led and followed from now on."""
        role = self._assignment.role
        led = {key: led for key, led in prepared.led.items() if _leads(role(key), led.leader_epoch)}
        followed = {
            key: (log, Source(wanted.source, wanted.leader_epoch))
            for key, log in prepared.followed.items()
            if (wanted := role(key)) is not None and wanted.source is not None
        }
        self._name((*(log for log, _ in led.values()), *prepared.followed.values()))
        refused = {key: error for key, error in prepared.refused.items() if role(key) is not None}
        self._leaders.lead(led)
        self._leaders.refuse(refused)
        opened = prepared.led.keys() | prepared.followed.keys()
        self._unopened = {
            key: error
            for key, error in {**self._unopened, **refused}.items()
            if key not in opened and role(key) is not None
        }
        self._unreleased |= prepared.unreleased
        again = self._unreleased or any(map(_RETRIABLE, self._unopened.values()))
        self._reopen_at = now + REOPEN_S if again else inf
        self._tell()
        return Begun(led, followed)

    def next_tick(self) -> float:
        """When `tick` has something to do."""
        return self._reopen_at

    def tick(self, now: float) -> None:
        """Try again to open what could not be opened, and to let go what could not go."""
        if now < self._reopen_at:
            return
        self._reopen_at = inf
        roles = {
            key: role
            for key, error in sorted(self._unopened.items(), key=_KEY)
            if error.retriable and (role := self._assignment.role(key)) is not None
        }
        released = {
            key: since for key, since in self._unreleased.items() if self._assignment.role(key) is None
        }
        self._unreleased = {}
        if roles or released:
            version, epoch = self._membership.cluster.version, self._membership.controller_epoch
            self._writer.submit(Prepare(version, epoch, [], roles, {}, released=released))

    def renew(self, out: Mapping[PartitionKey, int]) -> list[PartitionKey]:
        """Delete logs and make them anew, as far as they are followed in these epochs by now; these."""
        membership, role = self._membership, self._assignment.role
        roles = {
            key: followed
            for key, leader_epoch in sorted(out.items())
            if (followed := role(key)) is not None
            and followed.source is not None
            and followed.leader_epoch >= leader_epoch
        }
        if roles:
            topics = membership.cluster.topics
            configs = {topic_id: topics[topic_id].config for topic_id, _ in roles if topic_id in topics}
            self._writer.submit(
                Prepare(membership.cluster.version, membership.controller_epoch, [], roles, configs, [*roles])
            )
        return [*roles]

    def _tell(self) -> None:
        """Once what cannot be opened, though it is tried each second; again when that changes, or is over."""
        found = {type(error): error for error in self._unopened.values()}
        counts = Counter(map(type, self._unopened.values()))
        if counts == self._told:
            return
        self._told = counts
        for kind, error in found.items():
            logger.error("%s cannot be opened: %s", plural(counts[kind], "partition"), error)
        if not found:
            logger.warning("all partitions are open now")

    def _name(self, logs: Iterable[PartitionLog]) -> None:
        """Messages tell people which topic it is."""
        topics = self._membership.cluster.topics
        for log in logs:
            topic = topics.get(log.topic_id)
            if topic is not None:
                log.name = f"{topic.name}-{log.partition}"

    def _log_unknown(self, known: set[bytes]) -> None:
        unknown = sorted({topic_id.hex() for topic_id, _ in self._storage.logs if topic_id not in known})
        if unknown:
            logger.warning(
                "%d topics with logs here are not in the cluster state; their logs are kept: %s",
                len(unknown),
                ", ".join(unknown[:10]),
            )


def _leads(role: Role | None, leader_epoch: int) -> bool:
    return role is not None and role.source is None and role.leader_epoch == leader_epoch
