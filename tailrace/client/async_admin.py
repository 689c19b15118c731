"""`tailrace.AsyncAdmin`: `Admin` for asyncio."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from .admin import Admin
from .bridge import Bridge, twin
from .lifecycle import OfOneProcess

P = ParamSpec("P")
T = TypeVar("T")

CALLS_AT_ONCE_MAX: Final = 8
"""Calls of one admin client that wait at the same time; more queue behind them."""


class AsyncAdmin(OfOneProcess):
    """`Admin` with coroutines: the same methods, arguments and errors.

        async with AsyncAdmin() as admin:
            await admin.create_topic("orders", partitions=4)

    A call that is cancelled may be carried out nevertheless. It belongs to one asyncio loop, the first that
    it is used in: ConcurrentUseError in another.
    """

    EARLIEST: Final = Admin.EARLIEST
    LATEST: Final = Admin.LATEST

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070",
        *,
        request_timeout_ms: int = 30_000,
        **unknown: object,
    ) -> None:
        self._sync = Admin(bootstrap_servers, request_timeout_ms=request_timeout_ms, **unknown)
        self._bridge = Bridge("AsyncAdmin", threads=CALLS_AT_ONCE_MAX)

    async def __aenter__(self) -> Self:
        self._bridge.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """For users of aiokafka: nothing is to be started, but the loop is this one from now on."""
        self._bridge.enter()

    async def close(self) -> None:
        """Close the connections. Calls that wait in other tasks raise ClosedError. May be repeated."""
        if self._bridge.forked:
            return
        self._bridge.close()
        # Not by the bridge, whose threads may all wait for what only this ends.
        await asyncio.to_thread(self._sync.close)

    stop = close

    ready = twin(Admin.ready)
    create_topic = twin(Admin.create_topic)
    alter_topic = twin(Admin.alter_topic)
    delete_topic = twin(Admin.delete_topic)
    list_topics = twin(Admin.list_topics)
    describe_topic = twin(Admin.describe_topic)
    describe_topics = twin(Admin.describe_topics)
    describe_cluster = twin(Admin.describe_cluster)
    describe_logs = twin(Admin.describe_logs)
    list_offsets = twin(Admin.list_offsets)
    elect_leaders = twin(Admin.elect_leaders)
    move_partitions = twin(Admin.move_partitions)
    list_moves = twin(Admin.list_moves)
    cancel_moves = twin(Admin.cancel_moves)
    throttle_moves = twin(Admin.throttle_moves)
    plan_rebalance = twin(Admin.plan_rebalance)
    drain_node = twin(Admin.drain_node)
    remove_node = twin(Admin.remove_node)
    list_groups = twin(Admin.list_groups)
    describe_group = twin(Admin.describe_group)
    list_group_offsets = twin(Admin.list_group_offsets)
    reset_group_offsets = twin(Admin.reset_group_offsets)
    delete_group = twin(Admin.delete_group)

    async def _run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await self._bridge.run(function, *arguments, **options)
