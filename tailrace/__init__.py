"""Tailrace: a durable, partitioned log for Python.

The public face. Names are imported when they are first used, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailrace import errors as errors
    from tailrace.client.admin import Admin
    from tailrace.client.async_admin import AsyncAdmin
    from tailrace.client.descriptions import OffsetAndMetadata
    from tailrace.consumer.async_consumer import AsyncConsumer
    from tailrace.consumer.async_listener import AsyncRebalanceListener
    from tailrace.consumer.consumer import Consumer
    from tailrace.consumer.listener import RebalanceListener
    from tailrace.consumer.local.state import LocalEntry, read_local_state
    from tailrace.consumer.local.transaction import LocalTransaction
    from tailrace.producer.async_producer import AsyncProducer
    from tailrace.producer.producer import Producer
    from tailrace.protocol.errors import TailraceError
    from tailrace.protocol.record import Record, TopicPartition

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "AsyncAdmin",
    "AsyncConsumer",
    "AsyncProducer",
    "AsyncRebalanceListener",
    "Consumer",
    "LocalEntry",
    "LocalTransaction",
    "OffsetAndMetadata",
    "Producer",
    "RebalanceListener",
    "Record",
    "TailraceError",
    "TopicPartition",
    "__version__",
    "errors",
    "read_local_state",
]

_HOMES = {
    "Admin": "tailrace.client.admin",
    "AsyncAdmin": "tailrace.client.async_admin",
    "AsyncConsumer": "tailrace.consumer.async_consumer",
    "AsyncProducer": "tailrace.producer.async_producer",
    "AsyncRebalanceListener": "tailrace.consumer.async_listener",
    "Consumer": "tailrace.consumer.consumer",
    "LocalEntry": "tailrace.consumer.local.state",
    "LocalTransaction": "tailrace.consumer.local.transaction",
    "OffsetAndMetadata": "tailrace.client.descriptions",
    "Producer": "tailrace.producer.producer",
    "RebalanceListener": "tailrace.consumer.listener",
    "Record": "tailrace.protocol.record",
    "TailraceError": "tailrace.protocol.errors",
    "TopicPartition": "tailrace.protocol.record",
    "read_local_state": "tailrace.consumer.local.state",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("tailrace.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
