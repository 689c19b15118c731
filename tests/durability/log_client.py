"""A small blocking client of one topic's partition, for tests that look at single requests."""

from types import TracebackType
from typing import Self

from tailrace.client.admin import Admin
from tailrace.client.engine import Engine
from tailrace.protocol import columns
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import error_from
from tailrace.protocol.limits import MIB
from tailrace.protocol.messages import Fetch, Fetched, FetchEntry, Produce, Produced, ProduceEntry


def create_topic(coordinator: str, name: str, **config: int) -> None:
    """With one partition."""
    with Admin(coordinator) as admin:
        admin.create_topic(name, config=config)


def keep_for(coordinator: str, name: str, retention_ms: int) -> None:
    """Let retention delete what is older."""
    with Admin(coordinator) as admin:
        admin.alter_topic(name, config={"retention_ms": retention_ms})


class LogClient:
    """Produces to and fetches from partition 0 of a topic, one request at a time."""

    def __init__(self, coordinator: str, topic: str) -> None:
        self._engine = Engine(coordinator, name="log client")
        self._engine.start()
        self._topic = self._engine.wait_for_topic(topic, 10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._engine.close()

    def produce(self, value: bytes, *, timestamp: int = 0, timeout_s: float = 20) -> int:
        """One record in one batch; its offset. Raises what the node or connection says, without a retry."""
        partition = self._topic.partitions[0]
        entry = ProduceEntry(self._topic.topic_id, 0, partition.leader_epoch)
        batch = columns.encode([value], timestamps=timestamp)
        answer = self._engine.ask(
            partition.leader,
            lambda request_id: Produce(request_id, entries=[entry]),
            (batch,),
            timeout_s=timeout_s,
        )
        reply, _ = answer.wait(timeout_s)
        assert isinstance(reply, Produced)
        result = reply.results[0]
        if result.error.code:
            raise error_from(result.error.code, result.error.message)
        return result.base_offset

    def fetch(self, offset: int, *, max_bytes: int = MIB) -> list[bytes]:
        """The values of some records from `offset` on: those of one batch, and of more within `max_bytes`."""
        partition = self._topic.partitions[0]
        entry = FetchEntry(self._topic.topic_id, 0, partition.leader_epoch, offset, max_bytes)
        answer = self._engine.ask(
            partition.leader, lambda request_id: Fetch(request_id, entries=[entry]), timeout_s=20
        )
        reply, batches = answer.wait(20)
        assert isinstance(reply, Fetched)
        for result in reply.results:
            if result.error.code:
                raise error_from(result.error.code, result.error.message)
        return [value for batch in batches for value in decode(batch).values if value is not None]
