"""Sizes, counts and times as people write and read them."""

import re
from typing import Final

from tailrace.protocol.limits import GIB, KIB, MIB

TIB: Final = 1024 * GIB

_FACTORS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": KIB,
    "MIB": MIB,
    "GIB": GIB,
    "TIB": TIB,
}
_SIZE: Final = re.compile(r"([0-9]{1,18})\s*([A-Za-z]+)?")
_SECONDS: Final = re.compile(r"[0-9]{1,9}([.][0-9]{1,9})?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_DURATION_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_size(text: str) -> int:
    """Bytes of `64GiB` (powers of 1024), `64GB` (powers of 1000), or a plain number.

    Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get((match.group(2) or "B").upper()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no size; write a number of bytes, or one such as 512MiB or 64GiB")
    return int(match.group(1)) * factor


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `250ms`, `30s`, `5m`, `1h` or `7d`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write one such as 30s, 5m, 1h or 7d")
    return int(match.group(1)) * _DURATION_MS[match.group(2)]


def parse_seconds(text: str) -> float:
    """Seconds of `30` or `0.5`, or of a duration such as `500ms` or `5m`. Raises ValueError."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return parse_duration_ms(text) / 1000
    except ValueError:
        raise ValueError(f"{text!r} is no time; write seconds, or one such as 500ms, 30s or 5m") from None


def human_bytes(count: int) -> str:
    """`1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_count(count: float) -> str:
    """`1,234,567`."""
    return f"{count:,.0f}"
