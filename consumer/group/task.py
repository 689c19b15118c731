"""A group member's part in the I/O thread: joins, heartbeats, and the time that the application may take.

The lock is the one under which the application's thread is told of news, so that these end its wait.
"""

import logging
import platform
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from threading import Lock
from time import monotonic
from typing import Final
from uuid import uuid4

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.pending import Frame
from tailrace.protocol.errors import FencedMemberError, MalformedRequestError, TailraceError
from tailrace.protocol.group_messages import (
    NO_MEMBER,
    NO_MEMBER_EPOCH,
    GroupAssigned,
    GroupHeartbeat,
    JoinGroup,
    LeaveGroup,
)
from tailrace.protocol.limits import INSTANCE_ID_PATIENCE_MS
from tailrace.protocol.messages import Reply
from tailrace.protocol.partition_sets import keys_of, partition_set

from ..config import ConsumerConfig
from .membership import Heartbeat, Join, Membership, Phase

LEAVE_WITHIN_S: Final = 2.0

_log = logging.getLogger(__name__)


class GroupTask:
    """A `tailrace.client.engine.Task`. `tell` is called under `lock` when the application has to act."""

    def __init__(
        self, engine: Engine, config: ConsumerConfig, lock: Lock, tell: Callable[[], None], name: str
    ) -> None:
        assert config.group_id is not None
        self._engine = engine
        self._config = config
        self._group_id = config.group_id
        self._lock = lock
        self._tell = tell
        self._name = name
        self.membership = Membership(lambda: uuid4().hex, Random())
        self._progress_by: float | None = None

    # ---------------------------------------------------- for the application

    def identity(self) -> tuple[str, int]:
        """What commits are made with: without a subscription it is a standalone's.

        Raises FencedMemberError while it should be a member and is none: others may have its partitions.
        """
        with self._lock:
            membership = self.membership
            if membership.phase is Phase.IN:
                return membership.member_id, membership.epoch
            if membership.phase is Phase.OUT:
                return NO_MEMBER, NO_MEMBER_EPOCH
        raise FencedMemberError(
            f"{self._name} is no member of group {self._group_id} any more, so its partitions may be "
            "others' and nothing was committed; asking for records joins again"
        )

    def handed(self, now: float) -> None:
        """The application goes on, with something to work on or without."""
        interval_ms = self._config.max_poll_interval_ms
        if interval_ms is not None:
            self._progress_by = now + interval_ms / 1000
            self._engine.wake()

    def asked(self) -> None:
        """It asks for more."""
        self._progress_by = None

    def leave(self, member_id: str) -> Callable[[int], LeaveGroup]:
        """The request that ends a membership."""
        return partial(LeaveGroup, group_id=self._group_id, member_id=member_id)

    def end(self) -> Callable[[int], LeaveGroup] | None:
        """Be no member any more; what to say to the group, None for who is none or would come back."""
        with self._lock:
            member_id = self.membership.end()
        if member_id == NO_MEMBER or self._config.group_instance_id is not None:
            return None
        return self.leave(member_id)

    # --------------------------------------------------------- in the I/O thread

    def step(self, now: float) -> float | None:
        """Send what is to be sent."""
        self._watch_progress(now)
        with self._lock:
            plan = self.membership.plan(now)
            retry_at = self.membership.retry_at
        if plan is not None:
            self._send(plan)
        ends = [at for at in (self._progress_by, retry_at if retry_at > now else None) if at is not None]
        return min(ends, default=None)

    def cluster_changed(self) -> None:
        """The application's thread looks at it."""

    def closed(self, _error: TailraceError | None) -> None:
        """Nothing is resolved here."""

    def _watch_progress(self, now: float) -> None:
        by = self._progress_by
        if by is None or now < by:
            return
        self._progress_by = None
        with self._lock:
            if self.membership.phase is not Phase.IN:
                return
            member_id = self.membership.lose()
            self._tell()
        _log.warning(
            "%s: nothing was asked for within max_poll_interval_ms (%s): it leaves group %s until then",
            self._name,
            self._config.max_poll_interval_ms,
            self._group_id,
        )
        self._engine.request(COORDINATOR, self.leave(member_id), on_reply=self._left)

    def _left(self, reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
        if isinstance(reply, TailraceError):
            _log.warning("%s: leaving group %s: %s", self._name, self._group_id, reply)

    def _send(self, plan: Join | Heartbeat) -> None:
        config = self._config
        timeout_s = config.request_timeout_ms / 1000
        if isinstance(plan, Join):
            self._engine.request(
                COORDINATOR,
                partial(
                    JoinGroup,
                    group_id=self._group_id,
                    member_id=plan.member_id,
                    instance_id=config.group_instance_id or "",
                    client_id=self._name[:249],
                    host=platform.node()[:249],
                    topics=plan.topics,
                    assignor=config.partition_assignment_strategy,
                    session_timeout_ms=config.session_timeout_ms,
                ),
                on_reply=partial(self._replied, plan),
                timeout_s=min(timeout_s, config.session_timeout_ms / 1000),
            )
            return
        wait_ms = config.session_timeout_ms // 3
        self._engine.request(
            COORDINATOR,
            partial(
                GroupHeartbeat,
                group_id=self._group_id,
                member_id=plan.member_id,
                member_epoch=plan.epoch,
                owned=partition_set(plan.owned),
                topics=plan.topics,
                max_wait_ms=wait_ms,
            ),
            on_reply=partial(self._replied, plan),
            timeout_s=2 * wait_ms / 1000,
        )

    def _replied(
        self, plan: Join | Heartbeat, reply: Reply | TailraceError, _frames: Sequence[Frame]
    ) -> None:
        with self._lock:
            was, known = self.membership.phase, self.membership.patient_until > 0
            if isinstance(reply, GroupAssigned):
                self.membership.answered(plan, reply.member_epoch, frozenset(keys_of(reply.assigned)))
            else:
                error = (
                    reply
                    if isinstance(reply, TailraceError)
                    else MalformedRequestError(f"got {reply!r:.200}")
                )
                self.membership.failed(plan, error, monotonic())
                _log.debug("%s: group %s: %s", self._name, self._group_id, error)
            patient = self.membership.patient_until > 0 and not known
            if self.membership.unapplied or self.membership.phase is not was:
                self._tell()
        if patient:
            _log.warning("%s: %s; trying for %g s", self._name, reply, INSTANCE_ID_PATIENCE_MS / 1000)
