"""Watches the cluster from outside: who leads what, and how far each partition is committed."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from tailrace.client.admin import Admin
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import TopicPartition

from .history import Watermark, Writer

EVERY_S: Final = 0.2
ANSWER_WITHIN_MS: Final = 400
NAME: Final = "the observer"


class Observer:
    """A thread that asks a few times a second, and takes no answer for an answer."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int, history: Writer) -> None:
        self._admin = Admin(bootstrap_servers, request_timeout_ms=ANSWER_WITHIN_MS)
        self._topic = topic
        self._history = history
        self._leaders: dict[int, int] = {}
        self._watermarks = dict.fromkeys(range(partitions), 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._admin.close()
        self._thread.join()

    def leaders(self) -> Mapping[int, int]:
        """The leader of each partition that was last heard to have one."""
        return dict(self._leaders)

    @property
    def committed(self) -> int:
        """Records that readers may see, of all partitions."""
        return sum(self._watermarks.values())

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            with suppress(TailraceError):
                self._look_at_leaders()
            for partition in self._watermarks:
                with suppress(TailraceError):
                    self._look_at_watermark(partition)

    def _look_at_leaders(self) -> None:
        described = self._admin.describe_topic(self._topic)
        self._leaders = {
            each.partition: each.leader for each in described.partitions if each.leader is not None
        }

    def _look_at_watermark(self, partition: int) -> None:
        place = TopicPartition(self._topic, partition)
        found = self._admin.list_offsets({place: Admin.LATEST})[place]
        if found is not None:
            self._watermarks[partition] = found.offset
            self._history.write(
                Watermark(at_s=self._history.now(), observer=NAME, partition=partition, offset=found.offset)
            )
