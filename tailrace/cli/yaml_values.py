"""YAML in which every value knows its place, so that an error can name the file and the line."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import yaml

from tailrace.protocol.errors import InvalidConfigError
from tailrace.protocol.limits import MIB
from tailrace.protocol.similar import did_you_mean

from .units import parse_duration_ms, parse_size

FILE_BYTES_MAX: Final = MIB
DEPTH_MAX: Final = 16
"""Nesting beyond this is an alias that holds itself, or no config of ours."""

T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """One value: text, int, float, bool, None, a list of Values, or a dict of Values.

    `path` is where it stands in the document, such as `nodes[0].listen`; lines count from 1.
    """

    file: Path
    path: str
    line: int
    data: object

    def error(self, reason: str) -> InvalidConfigError:
        """The error that names this place."""
        return InvalidConfigError(f"{self.file}:{self.line}: {self.path + ': ' if self.path else ''}{reason}")


class Fields:
    """A mapping with known keys, read one by one.

    Raises InvalidConfigError for what is no mapping, and for keys that are not known.
    """

    def __init__(self, value: Value, known: Collection[str]) -> None:
        if not isinstance(value.data, dict):
            raise value.error(f"expected keys and values, not {_shown(value.data)}")
        self.value = value
        self._values: dict[str, Value] = value.data
        for key, entry in self._values.items():
            if key not in known:
                raise Value(entry.file, value.path, entry.line, None).error(_unknown(key, known))

    def get(self, key: str, parse: Callable[[Value], T], default: T) -> T:
        """The parsed value of `key`, or the default when it is not there."""
        entry = self._values.get(key)
        return default if entry is None else parse(entry)

    def require(self, key: str, parse: Callable[[Value], T]) -> T:
        """The parsed value of `key`; raises InvalidConfigError when it is not there."""
        if key not in self._values:
            raise self.value.error(f"{key!r} is missing")
        return parse(self._values[key])


def load(file: Path) -> Value:
    """The document in a file. Raises InvalidConfigError with the line of what cannot be read."""
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidConfigError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidConfigError(f"{file}: over {FILE_BYTES_MAX} bytes; this is no config file")
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidConfigError(f"{file}:{line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{file}: no YAML: {' '.join(str(error).split())}") from None
    if root is None:
        raise InvalidConfigError(f"{file}: the file is empty")
    return _value(file, "", root, 0)


def _value(file: Path, path: str, node: yaml.Node, depth: int) -> Value:
    line = node.start_mark.line + 1
    if depth > DEPTH_MAX:
        raise Value(file, path, line, None).error("nested too deep")
    data: object
    if isinstance(node, yaml.MappingNode):
        data = _mapping(file, path, node, depth)
    elif isinstance(node, yaml.SequenceNode):
        data = [_value(file, f"{path}[{n}]", item, depth + 1) for n, item in enumerate(node.value)]
    else:
        data = _scalar(Value(file, path, line, None), node)
    return Value(file, path, line, data)


def _mapping(file: Path, path: str, node: yaml.MappingNode, depth: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        place = Value(file, path, key_node.start_mark.line + 1, None)
        if not isinstance(key_node, yaml.ScalarNode):
            raise place.error("a key must be a plain word")
        if key in values:
            raise place.error(f"{key!r} is there twice, first in line {values[key].line}")
        value = _value(file, f"{path}.{key}" if path else key, value_node, depth + 1)
        values[key] = Value(file, value.path, place.line, value.data)
    return values


def _scalar(place: Value, node: yaml.Node) -> object:
    try:
        data: object = yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError):
        raise place.error(f"{node.value!r} is not a value of a kind that is known here") from None
    return data


def text(value: Value) -> str:
    """A non-empty text."""
    if not isinstance(value.data, str) or not value.data:
        raise value.error(f"expected a text, not {_shown(value.data)}")
    return value.data


def boolean(value: Value) -> bool:
    """`true` or `false`."""
    if not isinstance(value.data, bool):
        raise value.error(f"expected true or false, not {_shown(value.data)}")
    return value.data


def integer(low: int, high: int) -> Callable[[Value], int]:
    """A whole number within bounds."""

    def parse(value: Value) -> int:
        number = value.data
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise value.error(f"expected a whole number from {low} to {high}, not {_shown(number)}")
        return number

    return parse


def size(low: int, high: int) -> Callable[[Value], int]:
    """Bytes: a number, or a text such as `64GiB`."""
    return _measure("a size such as 64GiB", parse_size, low, high, "bytes")


def duration_ms(low: int, high: int) -> Callable[[Value], int]:
    """Milliseconds: a number, or a text such as `30s`."""
    return _measure("milliseconds, or a duration such as 30s", parse_duration_ms, low, high, "milliseconds")


def _measure(
    expected: str, read: Callable[[str], int], low: int, high: int, unit: str
) -> Callable[[Value], int]:
    def parse(value: Value) -> int:
        data = value.data
        if not isinstance(data, int | str) or isinstance(data, bool):
            raise value.error(f"expected {expected}, not {_shown(data)}")
        try:
            number = data if isinstance(data, int) else read(data)
        except ValueError as error:
            raise value.error(str(error)) from None
        if not low <= number <= high:
            raise value.error(f"{_shown(data)} is not within {low} and {high} {unit}")
        return number

    return parse


def choice(*options: str) -> Callable[[Value], str]:
    """One of a few words."""

    def parse(value: Value) -> str:
        if value.data not in options:
            raise value.error(f"expected {' or '.join(options)}, not {_shown(value.data)}")
        return str(value.data)

    return parse


def items(value: Value) -> Sequence[Value]:
    """A list that is not empty."""
    if not isinstance(value.data, list) or not value.data:
        raise value.error(f"expected a list of at least one, not {_shown(value.data)}")
    return value.data


def _shown(data: object) -> str:
    if isinstance(data, dict):
        return "keys and values"
    if isinstance(data, list):
        return "a list" if data else "an empty list"
    return "nothing" if data is None else repr(data)


def _unknown(key: str, known: Collection[str]) -> str:
    hint = did_you_mean(key, known) or f"; known are {', '.join(sorted(known))}"
    return f"unknown key {key!r}{hint}"
