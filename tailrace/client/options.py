"""Keyword options that nobody knows: refused, with the one that was probably meant."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.similar import did_you_mean

_NO_SECURITY: Final = "encryption and authentication are not there yet; listeners are on this machine only"
_NO_TRANSACTIONS: Final = "transactions are not there yet"
OF_KAFKA_CLIENTS: Final = {
    "api_version": "leave it out: the protocol's version is in every message",
    "connections_max_idle_ms": "leave it out: connections stay open",
    "isolation_level": _NO_TRANSACTIONS,
    "heartbeat_interval_ms": "leave it out: the coordinator keeps a heartbeat until it has news",
    "max_in_flight_requests_per_connection": "leave it out: order is kept however many are in flight",
    "metadata_max_age_ms": "leave it out: changes of the cluster are published to every client",
    "retries": "leave it out: a batch is retried until delivery_timeout_ms",
    "retry_backoff_ms": "leave it out: pauses grow from 10 ms to 1 s",
    "sasl_mechanism": _NO_SECURITY,
    "security_protocol": _NO_SECURITY,
    "ssl_cafile": _NO_SECURITY,
    "transaction_timeout_ms": _NO_TRANSACTIONS,
    "transactional_id": _NO_TRANSACTIONS,
}
"""Options that users of Kafka's clients know, and what to do here instead."""


def reject_unknown(owner: str, unknown: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise InvalidArgumentError if `unknown` holds anything.

    `owner` is the class as the user knows it ("Producer"), `known` are its options.
    """
    if not unknown:
        return
    names = sorted(known)
    problems = "; ".join(_problem(owner, name, names) for name in unknown)
    raise InvalidArgumentError(f"{problems} (options: {', '.join(names)})")


def keyword_options(function: Callable[..., object]) -> list[str]:
    """The names of a function's parameters that can be given by keyword, for `known`."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return [
        parameter.name for parameter in parameters if parameter.kind in named and parameter.name != "self"
    ]


def _problem(owner: str, name: str, known: list[str]) -> str:
    if name in OF_KAFKA_CLIENTS:
        return f"{owner} has no option {name!r}: {OF_KAFKA_CLIENTS[name]}"
    return f"{owner} has no option {name!r}{did_you_mean(name, known)}"
