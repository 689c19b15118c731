"""What a worker is to do, and how that reaches a fresh process.

The specification is pickled with cloudpickle, by value for closures, lambdas and everything of
`__main__`, into an anonymous file that every worker inherits, restarted ones too. A worker is
exec'ed anew, so that it runs nothing of the script or notebook that made the pool.
"""

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from tailrace.client.serializers import Deserializer, deserializer_of
from tailrace.consumer.decoding import Decoding
from tailrace.protocol.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The options of `Pool` that its workers need. Times in milliseconds."""

    handler: Callable[..., Any]
    topics: tuple[str, ...]
    group_id: str
    batches: bool
    retries: int
    retry_backoff_ms: int
    commit_interval_ms: int
    dead_letter_topic: str | None
    output_topic: str | None
    output_serializer: Any
    key_deserializer: str | Deserializer | None
    value_deserializer: str | Deserializer | None
    local_state: bool
    consumer: Mapping[str, Any]
    """The consumer's other options."""
    producer: Mapping[str, Any]

    def decoding(self) -> Decoding:
        """The deserializers themselves. They are made in the worker: not all can travel."""
        key, value = self.key_deserializer, self.value_deserializer
        return Decoding(
            deserializer_of("key_deserializer", key), deserializer_of("value_deserializer", value)
        )


def ship(spec: Spec) -> int:
    """A file descriptor to inherit, with the specification in it. The caller closes it.

    Raises InvalidArgumentError when the handler, or what it refers to, cannot be pickled.
    """
    try:
        payload = cloudpickle.dumps(spec)
    except Exception as error:
        raise InvalidArgumentError(
            f"the handler cannot be sent to a worker: {error}. It refers to something that lives in this "
            "process only, such as a lock, a connection or an open file: make that inside the handler"
        ) from error
    fd = os.memfd_create("tailrace-worker-spec")
    with os.fdopen(os.dup(fd), "wb") as file:
        pickle.dump((search_path(), payload), file)
    return fd


def search_path() -> Sequence[str]:
    """`sys.path` as another process can use it: modules are found there as they are here."""
    return [entry or str(Path.cwd()) for entry in sys.path]


def unpack(fd: int) -> Spec:
    """The specification, in the worker. Raises what importing the handler's modules raises."""
    with open(f"/proc/self/fd/{fd}", "rb") as file:  # noqa: PTH123 - every worker reads from the start
        path, payload = pickle.load(file)
    sys.path[:] = path
    spec = pickle.loads(payload)
    assert isinstance(spec, Spec)
    return spec
