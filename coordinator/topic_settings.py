"""What a user may ask of a topic: its name, its configuration, and how they are checked."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import asdict

from tailrace.protocol.cluster import TopicConfig
from tailrace.protocol.errors import InvalidConfigError, InvalidTopicError
from tailrace.protocol.limits import NAME_LENGTH_MAX
from tailrace.protocol.similar import did_you_mean

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_INT64_MAX: Final = 2**63 - 1
_SHOWN_MAX: Final = 60

_MINIMA: Final = {"retention_ms": -1, "retention_bytes": -1, "min_insync_replicas": 1}
_UNCLEAN: Final = "unclean_leader_election"
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_FIELDS: Final = TopicConfig.__struct_fields__
assert {*_MINIMA, _UNCLEAN} == set(_FIELDS)


def shown(text: str) -> str:
    """A peer's text as it may stand in a message."""
    return repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...")


def check_topic_name(name: str) -> None:
    """Raises InvalidTopicError unless `name` is of `[A-Za-z0-9._-]{1,249}` and not `.` or `..`."""
    if not name:
        raise InvalidTopicError("a topic needs a name")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidTopicError(
            f"topic name {shown(name)} has {len(name)} characters, at most {NAME_LENGTH_MAX} are possible"
        )
    if name in (".", "..") or not _NAME.fullmatch(name):
        raise InvalidTopicError(
            f"topic name {shown(name)}: use A-Z, a-z, 0-9, '.', '_' and '-', and not '.' or '..' alone"
        )


def parse_topic_config(config: Mapping[str, str | int], replication_factor: int) -> TopicConfig:
    """The configuration of keys with dots (as Kafka writes them) or underscores.

    Raises InvalidConfigError for an unknown or doubled key and for a value that does not fit.
    """
    values: dict[str, int] = {}
    for key, value in config.items():
        field = key.replace(".", "_")
        if field not in _FIELDS:
            hint = did_you_mean(field, _FIELDS) or f"; there are {', '.join(_FIELDS)}"
            raise InvalidConfigError(f"unknown topic config {shown(key)}{hint}")
        if field in values:
            raise InvalidConfigError(f"topic config {field} is given twice, with dots and with underscores")
        values[field] = _boolean(key, value) if field == _UNCLEAN else _integer(key, value, _MINIMA[field])
    needed = values.get("min_insync_replicas", 1)
    if needed > replication_factor:
        raise InvalidConfigError(
            f"min_insync_replicas is {needed}, but the replication factor is only {replication_factor}: "
            "nothing could be written"
        )
    return TopicConfig(**(asdict(TopicConfig()) | values))


def _boolean(key: str, value: str | int) -> bool:
    found = _BOOLEANS.get(str(value).strip().lower())
    if found is None:
        raise InvalidConfigError(f"topic config {key}: {shown(str(value))} is neither true nor false")
    return found


def _integer(key: str, value: str | int, minimum: int) -> int:
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value.strip()):
            raise InvalidConfigError(f"topic config {key}: {shown(value)} is not a whole number")
        value = int(value)
    if not minimum <= value <= _INT64_MAX:
        raise InvalidConfigError(f"topic config {key}: {value} is not from {minimum} to {_INT64_MAX}")
    return value
