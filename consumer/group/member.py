"""A group's assignment put into practice, in the application's thread, when it asks for records."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from threading import Lock
from time import monotonic
from typing import Final

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.errors import TailraceError, TimedOutError
from tailrace.protocol.group_messages import LeaveGroup
from tailrace.protocol.record import TopicPartition

from ..assigned import AssignedPartition, Key
from ..assignment import Assignment
from ..commits import Commits
from ..config import ConsumerConfig
from ..fetch_task import FetchTask
from ..listener import RebalanceListener
from .membership import Phase
from .task import LEAVE_WITHIN_S, GroupTask

_RETRY_S: Final = 0.1
"""Partitions that could not be begun are tried again after this."""

_log = logging.getLogger(__name__)


class Member:
    """One consumer in its group. All methods belong to the application's thread."""

    def __init__(
        self,
        engine: Engine,
        config: ConsumerConfig,
        fetching: FetchTask,
        lock: Lock,
        *,
        assignment: Assignment,
        commits: Commits,
        task: GroupTask,
    ) -> None:
        self._engine = engine
        self._config = config
        self._fetching = fetching
        self._lock = lock
        self._assignment = assignment
        self._commits = commits
        self.task = task
        self._pattern: re.Pattern[str] | None = None
        self._listener = RebalanceListener()
        self.retry_at = inf
        """When partitions that could not be begun are to be tried again (monotonic seconds)."""
        self.active = False
        """Is there a subscription?"""
        self.topics: tuple[str, ...] = ()
        self._missing: frozenset[str] = frozenset()
        """Subscribed topics that were deleted; the application was told."""
        self._seen: dict[bytes, int] = {}
        """How many partitions each topic had when we joined: what has come since was read by nobody."""

    def join(
        self,
        topics: Iterable[str],
        pattern: re.Pattern[str] | None,
        listener: RebalanceListener | None,
        timeout_s: float,
    ) -> None:
        """Be a member that reads these topics; returns when the first assignment has its positions.

        Raises UnknownTopicError, InstanceIdInUseError, TimedOutError, what the coordinator refuses with,
        and what looking up offsets and the listener raise; it is no member then, if it was none before.
        """
        deadline = monotonic() + timeout_s
        found = (
            tuple(self._assignment.find_topics(topics, deadline))
            if pattern is None
            else tuple(self._assignment.matching(pattern))
        )
        if not self.active:
            self._assignment.clear()
        before = (self._listener, self.topics, self._pattern)
        fresh, self.active = not self.active, True
        if fresh:
            topics_now = self._engine.cluster.topics
            self._seen = {topic_id: len(info.partitions) for topic_id, info in topics_now.items()}
        self._listener = listener or RebalanceListener()
        self._pattern, self.topics = pattern, found
        try:
            self._subscribe()
            self._wait_for_answer(deadline)
            self.apply(max(0.0, deadline - monotonic()))
        except BaseException:
            if fresh:
                self.leave(max(0.0, min(LEAVE_WITHIN_S, deadline - monotonic())))
            else:
                self._listener, self.topics, self._pattern = before
                self._subscribe()
            raise

    def follow_cluster(self) -> None:
        """Topics have come or gone."""
        if self._pattern is not None:
            matching = tuple(self._assignment.matching(self._pattern))
            if matching != self.topics:
                self.topics = matching
                self._subscribe()
        else:
            self._note_missing()
        gone = self._assignment.vanished()
        if gone:
            self._give_up(gone, lost=True)
        self._fetching.group_moved = True

    def apply(self, timeout_s: float) -> None:
        """Do what the group says: give up what others are to have, then begin what is new.

        Everything that was handed over has been settled before. Raises what the listener raises, and
        InstanceIdInUseError and the like when the group does not take the member any more.
        """
        self.retry_at = inf
        self._fetching.group_moved = False
        try:
            self._apply(timeout_s)
        except TailraceError:
            raise
        except BaseException:  # an interruption, maybe: the next ask goes on with it
            self._fetching.group_moved = True
            raise

    def _apply(self, timeout_s: float) -> None:
        membership = self.task.membership
        with self._lock:
            # Of what an interruption kept from being told.
            membership.give_up(membership.held - {partition.key for partition in self._held()})
            phase, assigned = membership.phase, membership.assigned
        if phase in (Phase.LOST, Phase.REFUSED):
            self._lose(phase)
            return
        if phase is not Phase.IN:
            return
        self._give_up([one for one in self._held() if one.key not in assigned], lost=False)
        try:
            self._take(assigned, timeout_s)
        except BaseException:
            self.retry_at = monotonic() + _RETRY_S
            raise

    def leave(self, timeout_s: float) -> None:
        """Give everything up; say so to the group, if it is a member that would not come back."""
        self.active = False
        self.topics, self._pattern = (), None
        try:
            if self._held():
                self._listener.on_revoked(self._names(self._held()))
        finally:
            self._assignment.drop(self._held())
            leave = self.task.end()
            self.retry_at = inf
            if leave is not None:
                self._say_leaving(leave, timeout_s)

    # ------------------------------------------------------------------ inside

    def _note_missing(self) -> None:
        missing = frozenset(topic for topic in self.topics if self._engine.topic(topic) is None)
        for topic in sorted(missing - self._missing):
            _log.warning(
                "group %s: topic %s does not exist any more; it is read again if it is created again",
                self._config.group_id,
                topic,
            )
        self._missing = missing

    def _subscribe(self) -> None:
        with self._lock:
            self.task.membership.subscribe(self.topics)
        self._engine.wake()

    def _wait_for_answer(self, deadline: float) -> None:
        membership = self.task.membership
        if not self._fetching.wait_for(lambda: membership.phase is not Phase.JOINING, deadline):
            raise TimedOutError(
                f"group {self._config.group_id}: the coordinator did not take the member in time"
            )
        with self._lock:
            refusal = membership.refusal
        if refusal is not None:
            raise refusal

    def _held(self) -> list[AssignedPartition]:
        return list(self._assignment.partitions.values())

    @staticmethod
    def _names(partitions: Iterable[AssignedPartition]) -> list[TopicPartition]:
        return [partition.name for partition in partitions]

    def _lose(self, phase: Phase) -> None:
        lost = self._held()
        membership = self.task.membership
        try:
            self._give_up(lost, lost=True)
        finally:
            with self._lock:
                refusal = membership.refusal
                if phase is Phase.LOST and membership.phase is Phase.LOST:
                    membership.rejoin()
            self._engine.wake()
        if refusal is not None:
            self._fetching.group_moved = True  # every ask says so, until the application subscribes again
            raise refusal

    def _give_up(self, partitions: Collection[AssignedPartition], *, lost: bool) -> None:
        if not partitions:
            return
        try:
            if lost:
                self._listener.on_lost(self._names(partitions))
            else:
                self._store(partitions)
                self._listener.on_revoked(self._names(partitions))
        finally:
            self._assignment.drop(partitions)
            with self._lock:
                self.task.membership.give_up(partition.key for partition in partitions)
            self._engine.wake()

    def _store(self, partitions: Collection[AssignedPartition]) -> None:
        if not self._commits.automatic:
            return
        try:
            self._commits.store_settled(partitions, monotonic())
        except TailraceError as error:
            _log.warning("offsets were not committed when partitions were given up: %s", error)

    def _take(self, assigned: frozenset[Key], timeout_s: float) -> None:
        topics = self._engine.cluster.topics
        new = assigned - {partition.key for partition in self._held()}
        wanted = {
            TopicPartition(topics[topic_id].name, number): topics[topic_id]
            for topic_id, number in sorted(new)
            if topic_id in topics and number < len(topics[topic_id].partitions)
        }
        if len(wanted) < len(new):
            self._engine.request_refresh()  # the change of the cluster brings us here again
        membership = self.task.membership
        with self._lock:
            # Not what was taken away while others were given up: another member may have it by now.
            taken = membership.hold((info.topic_id, name.partition) for name, info in wanted.items())
        wanted = {name: info for name, info in wanted.items() if (info.topic_id, name.partition) in taken}
        if not wanted:
            return
        try:
            started = self._assignment.take(wanted, timeout_s, self._come_since(wanted))
        except TailraceError:
            self._put_off(wanted, wanted)
            raise
        self._put_off(wanted, [name for name in wanted if name not in started])
        self._engine.wake()
        if started:
            self._listener.on_assigned(sorted(started))

    def _put_off(
        self, wanted: Mapping[TopicPartition, TopicInfo], waiting: Collection[TopicPartition]
    ) -> None:
        """These cannot begin now."""
        with self._lock:
            self.task.membership.give_up((wanted[name].topic_id, name.partition) for name in waiting)
        if waiting:
            self.retry_at = monotonic() + _RETRY_S

    def _come_since(self, wanted: Mapping[TopicPartition, TopicInfo]) -> set[TopicPartition]:
        return {name for name, info in wanted.items() if name.partition >= self._seen.get(info.topic_id, 0)}

    def _say_leaving(self, leave: Callable[[int], LeaveGroup], timeout_s: float) -> None:
        try:
            self._engine.call(COORDINATOR, leave, timeout_s=timeout_s)
        except TailraceError as error:
            _log.warning("leaving group %s: %s", self._config.group_id, error)
