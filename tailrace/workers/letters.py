"""What workers write: results, and records that no handler could do (dead letters)."""

from collections.abc import Coroutine, Generator, Iterable
from typing import Any

from tailrace.client.dead_letters import letter_for
from tailrace.producer.producer import Producer
from tailrace.protocol.errors import SerializationError
from tailrace.protocol.record import Record

from .spec import Spec

AnyRecord = Record[Any, Any]


class Letters:
    """One worker's producers, made when they are needed."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._results: Producer | None = None
        self._dead: Producer | None = None

    def send_results(self, result: Any, key: Any) -> None:
        """What a handler returned: nothing (None), one result, or a list of them.

        A result is a value, or a (key, value) tuple; without a key it gets that of the record.
        """
        topic = self._spec.output_topic
        if result is None:
            return
        if isinstance(result, Coroutine | Generator):
            raise SerializationError(f"the handler returned {result!r:.100}, which has done nothing yet")
        if topic is None:
            return
        if self._results is None:
            self._results = Producer(**self._spec.producer, value_serializer=self._spec.output_serializer)
        for one in result if isinstance(result, list) else [result]:
            own_key, value = one if isinstance(one, tuple) else (key, one)
            self._results.send(topic, value, own_key)

    def flush(self) -> None:
        """Returns when all results are stored. Raises DeliveryFailedError."""
        if self._results is not None:
            self._results.flush()

    def bury(self, dead: Iterable[tuple[AnyRecord, str]]) -> None:
        """Write dead letters: records with their original bytes, and why. Returns when they are stored."""
        assert self._spec.dead_letter_topic is not None
        if self._dead is None:
            self._dead = Producer(**self._spec.producer)
        for record, reason in dead:
            letter = letter_for(record, reason)
            self._dead.send(self._spec.dead_letter_topic, letter.value, letter.key, letter.headers)
        self._dead.flush()

    def close(self) -> None:
        """Flush and end."""
        for producer in (self._results, self._dead):
            if producer is not None:
                producer.close()
