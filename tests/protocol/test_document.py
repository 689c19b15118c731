"""docs/protocol.md says what the code does: every message, field, error, bound and buffer."""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tailrace.node import membership
from tailrace.protocol import batch, cluster, limits, messages
from tailrace.protocol.columns import Kind
from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import ERROR_CLASSES, ErrorCode

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|")
]
TAGGED = {
    kind
    for union in (messages.Request, messages.Reply, messages.Published, cluster.Change)
    for kind in get_args(union)
}
HIDDEN = {"request_id", "version", "controller_epoch"}


def structs_in(kind: Any, found: set[Any]) -> set[Any]:
    """All structs that a message is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in found:
            found.add(kind)
            for field in msgspec.structs.fields(kind):
                structs_in(field.type, found)
    else:
        for inner in get_args(kind):
            structs_in(inner, found)
    return found


PARTS = {part for kind in TAGGED for part in structs_in(kind, set())} - TAGGED


def names_in(cell: str) -> list[str]:
    """The first word of each `name type`."""
    return [field.split()[0] for field in re.sub(r"\{.*?\}", "map", cell).split(", ") if field]


@pytest.mark.parametrize(
    "kind", sorted(TAGGED, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_messages(kind: Any) -> None:
    (row,) = [row for row in ROWS if row[1:2] == [kind.__name__]]
    assert int(row[0]) == kind.__struct_config__.tag
    hidden = HIDDEN if issubclass(kind, messages.Message | messages.Update | messages.Beat) else set()
    if kind is messages.HeartbeatSeen:
        hidden = HIDDEN - {"controller_epoch"}
    assert names_in(row[2]) == [name for name in kind.__struct_fields__ if name not in hidden]


@pytest.mark.parametrize(
    "kind", sorted(PARTS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_structs(kind: Any) -> None:
    (row,) = [row for row in ROWS if row[0] == kind.__name__]
    assert names_in(row[1]) == list(kind.__struct_fields__)


def test_every_error() -> None:
    documented = {row[1]: row for row in ROWS if row[1] in ErrorCode.__members__ and row[0].isdigit()}
    assert list(documented) == [code.name for code in ErrorCode]
    for name, row in documented.items():
        code = ErrorCode[name]
        assert int(row[0]) == code
        retriable = code in ERROR_CLASSES and ERROR_CLASSES[code].retriable
        assert row[2] == ("yes" if retriable else ""), name


def test_every_bound_named_there() -> None:
    units = {"MiB": limits.MIB, "KiB": limits.KIB}
    documented = [row for row in ROWS if row[0].isupper() and "_" in row[0]]
    assert len(documented) > 20
    for name, value, *_ in documented:
        number, *unit = value.replace(",", "").split()
        assert getattr(limits, name) == int(number) * (units[unit[0]] if unit else 1), name


def test_other_bounds_exist() -> None:
    for name in set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*_(?:MAX|BATCHES)\b", TEXT)):
        assert hasattr(limits, name) or hasattr(membership, name), name


def test_buffers() -> None:
    documented = {row[1]: int(row[0]) for row in ROWS if row[1] in Kind.__members__}
    assert documented == {kind.name: int(kind) for kind in Kind}


def test_envelope() -> None:
    places = [
        int(row[0]) for row in ROWS if len(row) == 4 and row[2] in ("i64", "i32", "i16", "i8", "u32", "u16")
    ]
    sizes = [8, 4, 4, 1, 4, 2, 4, 8, 8, 8, 2, 4, 4]
    assert places == [sum(sizes[:place]) for place in range(len(sizes))]
    assert sum(sizes) == batch.HEADER_BYTES
    bits = {int(row[0], 16) for row in ROWS if re.fullmatch(r"0x[0-9a-f]{4}", row[0])}
    assert bits == {
        batch.COMPRESSION_MASK, batch.LOG_APPEND_TIME, batch.TRANSACTIONAL, batch.CONTROL, batch.ALL_KEYS,
    }  # fmt: skip


def test_codecs() -> None:
    for codec in Compression:
        assert f"{int(codec)} {codec.name.lower()}" in TEXT
