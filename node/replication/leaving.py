"""Asks the coordinator to go on without the logs of this node that are faulty."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tailrace.protocol.errors import ErrorCode, TailraceError
from tailrace.protocol.messages import Reply
from tailrace.protocol.replica_messages import IsrAltered, IsrResult, LeaveIsr, ReplicaPlace
from tailrace.transport.server import Buffer

from .faulty import ASK_AGAIN_S, FaultyLogs

logger: Final = logging.getLogger(__name__)

OnReply: TypeAlias = Callable[[Reply | TailraceError, Sequence[Buffer]], None]
Ask: TypeAlias = Callable[[LeaveIsr, OnReply, float], None]
"""(request, what is called with its answer, now): sends a request to the coordinator."""


def answers_of(reply: Reply | TailraceError, count: int) -> list[IsrResult | None]:
    """The results of a request for `count` partitions; None for each if it was not answered."""
    if isinstance(reply, IsrAltered) and len(reply.results) == count:
        return [*reply.results]
    return [None] * count


def leave_isr(
    faulty: FaultyLogs, ask: Ask, request_id: int, node_id: int, *, node_epoch: int, now: float
) -> None:
    """Ask for all for which that is due."""
    keys = faulty.ask(now)
    if not keys:
        return

    def on_reply(reply: Reply | TailraceError, _frames: Sequence[Buffer]) -> None:
        logger.debug("the coordinator was asked to go on without faulty logs: %s", reply)
        for key, answer in zip(keys, answers_of(reply, len(keys)), strict=True):
            partition = None if answer is None or answer.error.code != ErrorCode.NONE else answer.partition
            out_from = None if partition is None else partition.leader_epoch
            faulty.answered(key, out_from=out_from, ask_at=now + ASK_AGAIN_S)

    replicas = [ReplicaPlace(*key) for key in keys]
    ask(LeaveIsr(request_id, node_id=node_id, node_epoch=node_epoch, replicas=replicas), on_reply, now)
