"""Builds the LD_PRELOAD shim, reads what it recorded, and finds the acknowledgements in it."""

import atexit
import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tailrace.protocol import wire
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import Produced

SOURCE = Path(__file__).with_name("shim.c")
EVENT = struct.Struct("=QIIQQII")
GREETING_BYTES = 64
LONG_FRAME = 2
COMMAND_FRAME = 4


class Kind(IntEnum):
    """As in shim.c."""

    WRITE_BEGIN = 1
    WRITE_END = 2
    SYNC_END = 3
    SEND = 4
    SYNC_BEGIN = 5
    SENT = 6


class Event(NamedTuple):
    """One recorded call; `offset` is how much was taken in the case of SENT."""

    monotonic_ns: int
    kind: Kind
    fd: int
    offset: int
    durable: bool
    ok: bool
    data: bytes


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Removed when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="tailrace-shim-")
    atexit.register(folder.cleanup)
    return folder


@cache
def shim() -> Path:
    """The compiled shim; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("the recorder of writes and syncs needs Linux and a C compiler")
    target = Path(_folder().name) / "shim.so"
    flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", target, SOURCE, "-ldl", "-lpthread"], check=True)
    return target


def environment(*, record: Path | None = None, control: Path | None = None) -> dict[str, str]:
    """The environment of a process that runs under the shim."""
    variables = dict(os.environ, LD_PRELOAD=str(shim()))
    if record is not None:
        variables["TAILRACE_SHIM_RECORD"] = str(record)
    if control is not None:
        variables["TAILRACE_SHIM_CONTROL"] = str(control)
    return variables


def events(record: Path) -> Iterator[Event]:
    """The events in order. A process that was killed may leave half an event; it is left out."""
    raw = memoryview(record.read_bytes())
    at = 0
    while at + EVENT.size <= len(raw):
        monotonic_ns, kind, fd, offset, length, durable, ok = EVENT.unpack_from(raw, at)
        at += EVENT.size
        data = bytes(raw[at : at + length])
        at += length
        if len(data) == length:
            yield Event(monotonic_ns, Kind(kind), fd, offset, bool(durable), bool(ok), data)


def acknowledgements(recorded: Sequence[Event]) -> dict[int, list[Produced]]:
    """The `Produced` replies in what was sent, by the index of the send that took their last byte.

    Sends are ZMTP 3.1 streams: a greeting, then frames of (flags, length, body).
    """
    streams: dict[int, bytearray] = defaultdict(bytearray)
    ends: dict[int, list[tuple[int, int]]] = defaultdict(list)
    offered: dict[int, int] = {}
    for index, event in enumerate(recorded):
        if event.kind is Kind.SEND:
            offered[event.fd] = index
        elif event.kind is Kind.SENT and event.fd in offered:
            sent_at = offered.pop(event.fd)
            streams[event.fd] += recorded[sent_at].data[: event.offset]
            ends[event.fd].append((len(streams[event.fd]), sent_at))
    found: dict[int, list[Produced]] = defaultdict(list)
    for fd, stream in streams.items():
        for end, reply in _replies(bytes(stream)):
            index = ends[fd][bisect_left(ends[fd], (end, 0))][1]
            found[index].append(reply)
    return found


def _replies(stream: bytes) -> Iterator[tuple[int, Produced]]:
    at = GREETING_BYTES
    while at + 2 <= len(stream):
        flags = stream[at]
        if flags & LONG_FRAME:
            length, start = int.from_bytes(stream[at + 1 : at + 9]), at + 9
        else:
            length, start = stream[at + 1], at + 2
        at = start + length
        if at <= len(stream) and not flags & COMMAND_FRAME:
            with contextlib.suppress(TailraceError):
                reply = wire.decode_reply(stream[start:at])
                if isinstance(reply, Produced):
                    yield at, reply
