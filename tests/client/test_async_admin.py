"""The async twins: the same names, arguments and options as the clients that they are made of; AsyncAdmin."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tailrace import (
    Admin,
    AsyncAdmin,
    AsyncConsumer,
    AsyncProducer,
    Consumer,
    Producer,
    TopicPartition,
)
from tailrace.client.bridge import Bridge
from tailrace.protocol.errors import ClosedError, ConcurrentUseError, InvalidArgumentError, TopicExistsError
from tailrace.testing import Cluster

TWINS: list[tuple[type[Any], type[Any]]] = [
    (Admin, AsyncAdmin),
    (Producer, AsyncProducer),
    (Consumer, AsyncConsumer),
]
OWN_WORDS = {
    ("AsyncConsumer", "subscribe"),  # also takes listeners whose methods are coroutines
}
NOT_FOR_USERS = {("Producer", "disown")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def methods(client: type[Any]) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(client)
        if not name.startswith("_") and (client.__name__, name) not in NOT_FOR_USERS
    }


@pytest.mark.parametrize(("sync", "twin"), TWINS)
def test_nothing_is_missing_and_all_takes_the_same(sync: type[Any], twin: type[Any]) -> None:
    theirs = methods(twin)
    for name, method in methods(sync).items():
        assert name in theirs, f"{twin.__name__} has no {name}"
        if callable(method) and (twin.__name__, name) not in OWN_WORDS:
            expected, found = inspect.signature(method), inspect.signature(theirs[name])
            assert list(expected.parameters.values()) == list(found.parameters.values()), name
        assert theirs[name].__doc__ or not callable(method), name


@pytest.mark.parametrize(("sync", "twin"), TWINS)
def test_the_same_options(sync: type[Any], twin: type[Any]) -> None:
    expected, found = (list(inspect.signature(one.__init__).parameters.values()) for one in (sync, twin))
    assert expected == found
    with pytest.raises(InvalidArgumentError, match="did you mean 'request_timeout_ms'"):
        twin(request_timeout=1)
    with pytest.raises(InvalidArgumentError, match="request_timeout_ms"):
        twin(request_timeout_ms=0)


def test_admin(cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncAdmin(cluster.bootstrap_servers) as admin:
            created, _ = await asyncio.gather(
                admin.create_topic("async-a", partitions=2), admin.create_topic("async-b")
            )
            assert len(created.partitions) == 2
            assert {"async-a", "async-b"} <= set(await admin.list_topics())
            with pytest.raises(TopicExistsError):
                await admin.create_topic("async-a")
            ends = await admin.list_offsets({TopicPartition("async-a", 1): AsyncAdmin.LATEST})
            assert ends[TopicPartition("async-a", 1)].offset == 0  # type: ignore[union-attr]
            await admin.delete_topic("async-a")
        with pytest.raises(ClosedError):
            await admin.list_topics()

    asyncio.run(main())


def test_an_address_where_nobody_is_does_not_stop_the_loop() -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncAdmin("127.0.0.1:1") as admin:
            ticker = asyncio.create_task(tick())
            call = asyncio.create_task(admin.list_topics())
            while ticks < 1_000:
                await asyncio.sleep(0)
                assert not call.done()
            call.cancel()
            ticker.cancel()

    asyncio.run(main())


def test_another_loop_is_refused(cluster: Cluster) -> None:
    admin = AsyncAdmin(cluster.bootstrap_servers)
    asyncio.run(admin.list_topics())
    with pytest.raises(ConcurrentUseError, match="belongs to the asyncio loop that it was used in first"):
        asyncio.run(admin.list_topics())
    asyncio.run(admin.close())


def test_calls_queue_for_the_threads_there_are() -> None:
    async def main() -> None:
        bridge = Bridge("test", threads=1)
        started, go_on = threading.Event(), threading.Event()
        done: list[str] = []

        def first() -> None:
            started.set()
            assert go_on.wait(20)
            done.append("first")

        one = asyncio.create_task(bridge.run(first))
        while not started.is_set():
            await asyncio.sleep(0)
        two = asyncio.create_task(bridge.run(done.append, "two"))
        three = asyncio.create_task(bridge.run(done.append, "three"))
        await asyncio.sleep(0)
        one.cancel()  # it has begun: it goes on
        two.cancel()  # it has not
        await asyncio.wait([one, two])
        go_on.set()
        await three
        assert done == ["first", "three"]
        assert one.cancelled()
        assert two.cancelled()
        bridge.close()

    asyncio.run(main())


def test_one_ring_for_a_burst() -> None:
    async def main() -> None:
        bridge = Bridge("test", threads=1)
        loop = bridge.enter()
        calls = 0
        threadsafe = loop.call_soon_threadsafe

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return threadsafe(*arguments, **options)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        heard: list[int] = []
        for number in range(1_000):
            bridge.ring(lambda number=number: heard.append(number))  # type: ignore[misc]
        while len(heard) < 1_000:
            await asyncio.sleep(0)
        assert heard == list(range(1_000))
        assert calls == 1

    asyncio.run(main())


def test_a_coroutine_that_a_call_waits_for_may_call_itself() -> None:
    async def main() -> None:
        bridge = Bridge("test", threads=1)
        seen: list[str] = []

        async def inner() -> None:
            assert bridge.within_call
            seen.append(await bridge.run(lambda: threading.current_thread().name))
            with pytest.raises(ZeroDivisionError):
                await bridge.run(lambda: 1 // 0)

        def outer() -> str:
            bridge.call_back(inner)
            return threading.current_thread().name

        assert [await bridge.run(outer)] == seen
        assert not bridge.within_call
        bridge.close()

    asyncio.run(main())
