"""Serializers and deserializers by name, and the check of those that are functions.

| name | to bytes | from bytes |
|---|---|---|
| json | any value that msgspec knows, as JSON in UTF-8 | dicts, lists, str, int, float, bool, None |
| str | a str, as UTF-8 | a str |
| msgpack | as json, and bytes | as json, and bytes |
| pickle | anything, functions and classes of `__main__` too (cloudpickle) | **runs what the bytes say** |

JSON has fewer kinds than Python: tuples and sets are read back as lists, bytes as base64, the keys of a dict,
Decimals, UUIDs, dates and times (ISO 8601) as str. msgpack keeps bytes, and keys that are numbers. NaN and
infinity, which JSON does not have, raise SerializationError.

Bytes are unpickled only by a consumer that names "pickle": who can write to its topics can run code in it.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import json, msgpack, to_builtins

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.similar import did_you_mean

Serializer: TypeAlias = Callable[[Any], bytes | None]
Deserializer: TypeAlias = Callable[[bytes], Any]


class _Codec(NamedTuple):
    to_bytes: Serializer
    from_bytes: Deserializer


def _pickled(value: object) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def _unpickled(data: bytes) -> object:
    import pickle

    return pickle.loads(data)


_encoded: Final = json.Encoder().encode


def _json(value: object) -> bytes:
    """Raises ValueError for NaN and infinity, of which the encoder makes a null."""
    data = _encoded(value)
    if b"null" in data and not _is_finite(to_builtins(value)):
        raise ValueError("JSON has no NaN and no infinity: give None for what is missing")
    return data


def _is_finite(value: Any) -> bool:
    """Are all numbers in it? Of the kinds that `to_builtins` gives."""
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return True
    return all(map(_is_finite, value))


_CODECS: Final = {
    "json": _Codec(_json, json.Decoder().decode),
    "str": _Codec(str.encode, bytes.decode),
    "msgpack": _Codec(msgpack.Encoder().encode, msgpack.Decoder().decode),
    "pickle": _Codec(_pickled, _unpickled),
}


NAMES: Final = tuple(_CODECS)
"""What can be given by name."""


def serializer_of(option: str, given: str | Serializer | None) -> Serializer | None:
    """What the option stands for; None for bytes as they are.

    Raises InvalidArgumentError for what is neither a function nor a name that is known.
    """
    if given is None:
        return None
    return _codec(option, given).to_bytes if isinstance(given, str) else _function(option, given)


def deserializer_of(option: str, given: str | Deserializer | None) -> Deserializer | None:
    """As `serializer_of`, from bytes."""
    if given is None:
        return None
    return _codec(option, given).from_bytes if isinstance(given, str) else _function(option, given)


def _codec(option: str, name: str) -> _Codec:
    if name not in _CODECS:
        names = ", ".join(map(repr, _CODECS))
        raise InvalidArgumentError(
            f"{option}={name!r} is not known{did_you_mean(name, _CODECS)}; it is a function, one of {names}, "
            "or None"
        )
    return _CODECS[name]


def _function(option: str, given: object) -> Callable[[Any], Any]:
    if callable(given):
        return given
    names = ", ".join(map(repr, _CODECS))
    raise InvalidArgumentError(f"{option} is {given!r:.100}; it is a function, one of {names}, or None")
