"""What the parent and its clients tell each other: one JSON object a line.

A client first gets its `Task`. It answers `Ready` when it is connected, begins at the moment that `Start`
names, tells `Sample` four times a second, and `Done` at the end, or `Failed`. A consumer ends where `Until`
says, a producer by itself; `Stop` ends both early. The end of its input ends a client at once.
"""

import os
from typing import Final, TypeAlias

import msgspec

from .verify import Seen

EVERY_S: Final = 0.25
SLOW_EVERY_S: Final = 1.0
"""How often a sample has latencies, and a new look at the memory: they take the longest."""

_READ_BYTES: Final = 256 * 1024


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Begin at `at_ns` (CLOCK_MONOTONIC)."""

    at_ns: int


class Until(msgspec.Struct, frozen=True, tag="until"):
    """End before these offsets, by partition."""

    ends: dict[int, int]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End soon."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """It is connected and may be started."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """How far a client is. `records` are acknowledged or read; `latencies` (microseconds: how many)
    those since the last sample that had some.

    `value_bytes` are those of the values, about, if their sizes are not known; `cpu_s` since the start;
    `rss_anon` in bytes, None where it is not known.
    """

    at_ns: int
    records: int
    value_bytes: int = 0
    latencies: dict[int, int] = {}
    cpu_s: float = 0.0
    rss_anon: int | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end, after the last sample. `last_ns`: when the last record was acknowledged or read, 0 for none.

    `error` is why the first of `failed` records failed. With `verify` a producer tells which sequences
    were acknowledged, a consumer what it has seen.
    """

    sent: int = 0
    failed: int = 0
    error: str = ""
    last_ns: int = 0
    acked: str = ""
    seen: Seen | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not go on."""

    message: str


Command: TypeAlias = Start | Until | Stop
Line: TypeAlias = Ready | Sample | Done | Failed

_encoder: Final = msgspec.json.Encoder()
_lines: Final = msgspec.json.Decoder(Line)
_commands: Final = msgspec.json.Decoder(Command)


def encode(message: msgspec.Struct) -> bytes:
    """As a line."""
    return _encoder.encode(message) + b"\n"


def decode_command(line: bytes) -> Command:
    """What the parent said."""
    command: Command = _commands.decode(line)
    return command


class Ear:
    """The parent's end of a client's output. `fd` is made not to block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._parts: list[bytes] = []
        os.set_blocking(fd, False)

    def listen(self) -> tuple[list[Line], bool]:
        """What was said, and whether more may come. Never waits."""
        try:
            chunk = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return [], True
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            self._parts.append(tail)
            return [], bool(chunk)
        whole = b"".join([*self._parts, head])
        self._parts = [tail]
        return [_lines.decode(line) for line in whole.split(b"\n")], True
