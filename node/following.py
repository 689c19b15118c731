"""Makes the node do what the cluster state says: from a change of the state to open logs, and back.

Belongs to the network thread. A partition that is not led any more is refused from the moment the
state says so; one that is led anew is served once the writer has opened its log and recorded the
leader epoch. Logs that the state does not know are left alone.
"""

import logging
from math import inf
from typing import Final

from tailrace.protocol.errors import TailraceError

from .actions import Follow
from .assignment import Assignment
from .leaders import Leaders
from .membership import Membership
from .storage.environment import Storage
from .storage.partition_log import PartitionKey
from .work import Prepare, Prepared
from .writer import Writer

REOPEN_S: Final = 1.0
"""A log that could not be made for lack of room is tried again after this time."""

logger: Final = logging.getLogger(__name__)


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
        self._unopened: set[PartitionKey] = set()
        self._reopen_at = inf
        self._unknown_logged = False

    def follow(self, action: Follow) -> list[PartitionKey]:
        """The state moved on. Returns the partitions that are not led any more."""
        cluster = self._membership.cluster
        plan = self._assignment.follow(cluster, action.touched, action.deleted)
        self._leaders.resign(plan.resign)
        self._leaders.deleted(plan.drop)
        # From now on, not when the log is open: a registration in between has to ask about it.
        held = self._membership.held_topics
        held.difference_update(plan.drop)
        held.update(topic_id for topic_id, _ in plan.lead)
        if not self._unknown_logged:
            self._unknown_logged = True
            self._log_unknown(cluster.topics.keys() | set(plan.drop))
        self._writer.submit(
            Prepare(cluster.version, self._membership.controller_epoch, plan.drop, plan.lead, plan.configs)
        )
        return plan.resign

    def prepared(self, prepared: Prepared, now: float) -> list[PartitionKey]:
        """The writer is done with a version. Returns the partitions that are led from now on."""
        wanted = self._assignment.epoch
        led = {key: led for key, led in prepared.led.items() if wanted(key) == led.leader_epoch}
        refused = {key: error for key, error in prepared.refused.items() if wanted(key) is not None}
        self._leaders.lead(led)
        self._leaders.refuse(refused)
        self._unopened.difference_update(prepared.led)
        self._unopened.update(key for key, error in refused.items() if error.retriable)
        self._reopen_at = now + REOPEN_S if self._unopened else inf
        for error in dict.fromkeys(map(_describe, refused.values())):
            logger.error("%d partitions cannot be led: %s", len(refused), error)
        return list(led)

    def next_tick(self) -> float:
        """When `tick` has something to do."""
        return self._reopen_at

    def tick(self, now: float) -> None:
        """Try again to open what could not be opened."""
        if now < self._reopen_at:
            return
        self._reopen_at = inf
        lead = {key: epoch for key in self._unopened if (epoch := self._assignment.epoch(key)) is not None}
        self._unopened.intersection_update(lead)
        if lead:
            membership = self._membership
            self._writer.submit(
                Prepare(membership.cluster.version, membership.controller_epoch, [], lead, {})
            )

    def _log_unknown(self, known: set[bytes]) -> None:
        unknown = sorted({topic_id.hex() for topic_id, _ in self._storage.logs if topic_id not in known})
        if unknown:
            logger.warning(
                "%d topics with logs here are not in the cluster state; their logs are kept: %s",
                len(unknown),
                ", ".join(unknown[:10]),
            )


def _describe(error: TailraceError) -> str:
    return str(error)
