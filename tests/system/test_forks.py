"""A fork of a process with clients for asyncio: no use to the child, and the parent's go on."""

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tailrace import AsyncAdmin, AsyncConsumer, AsyncProducer
from tailrace.protocol.errors import ClosedError
from tailrace.testing import Cluster

from ..conftest import MakeTopic

REFUSED = 7
Call = Callable[[], Awaitable[Any]]


def in_child(check: Callable[[], Any]) -> int:
    """The exit code of a fork that does this and ends at once."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(check())
        except BaseException:  # noqa: BLE001 - nothing of the test's frames may run in the child
            traceback.print_exc(file=sys.stderr)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def step(call: Call) -> int:
    """Go on where the loop was, which the child does not have."""
    try:
        call().__await__().send(None)
    except ClosedError as error:
        return REFUSED if "made before fork()" in str(error) else 1
    return 0


def in_a_loop(call: Call) -> int:
    """In a loop of the child's own."""

    async def main() -> Any:
        return await call()

    try:
        asyncio.run(main())
    except ClosedError as error:
        return REFUSED if "made before fork()" in str(error) else 1
    return 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_async_clients_after_a_fork(cluster: Cluster, topic: MakeTopic) -> None:
    name = topic(1)
    servers = cluster.bootstrap_servers

    async def main() -> None:
        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(AsyncProducer(servers))
            admin = await stack.enter_async_context(AsyncAdmin(servers))
            consumer = await stack.enter_async_context(
                AsyncConsumer(
                    name, bootstrap_servers=servers, group_id=f"forked-{name}", auto_offset_reset="earliest"
                )
            )
            await producer.send_and_wait(name, b"0")
            await admin.list_topics()
            assert (await consumer.getone()).value == b"0"
            calls: list[Call] = [
                lambda: producer.send(name, b"x"),
                lambda: producer.send_many(name, [b"x"]),
                producer.flush,
                admin.list_topics,
                consumer.poll,
                consumer.getone,
                consumer.commit,
                lambda: consumer.subscribe(name),
            ]
            for number, call in enumerate(calls):
                assert in_child(lambda: step(call)) == REFUSED, number  # noqa: B023
                assert in_child(lambda: in_a_loop(call)) == REFUSED, number  # noqa: B023
            for client in (producer, admin, consumer):
                assert in_child(lambda: in_a_loop(client.close)) == 0, client  # noqa: B023
            await producer.send_and_wait(name, b"1")
            assert (await consumer.getone()).value == b"1"
            await consumer.commit()

    asyncio.run(main())
