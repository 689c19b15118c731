"""Sizes, counts and times as people write and read them."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from tailrace.protocol.limits import GIB, KIB, MIB

TIB: Final = 1024 * GIB

_SIZE_FACTORS: Final = {
    "": 1,
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
_COUNT_FACTORS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NUMBER: Final = re.compile(r"([0-9]{1,18}(?:[.][0-9]{1,9})?)\s*([A-Za-z]*)")
_SECONDS: Final = re.compile(r"[0-9]{1,9}([.][0-9]{1,9})?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_DURATION_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_size(text: str) -> int:
    """Bytes of `1.5GiB` (powers of 1024), `1.5GB` (powers of 1000), or a plain number.

    Raises ValueError, also if it is no whole number of them.
    """
    otherwise = "is no size; write a number of bytes, or one such as 512MiB or 1.5GiB"
    return _whole(text, _SIZE_FACTORS, otherwise, "whole number of bytes")


def parse_count(text: str) -> int:
    """How many `1.5M`, `500k` (powers of 1000) or a plain number are.

    Raises ValueError, also if it is no whole number.
    """
    otherwise = "is no count; write a number, or one such as 500k or 1.5M"
    return _whole(text, _COUNT_FACTORS, otherwise, "whole number")


def _whole(text: str, factors: Mapping[str, int], otherwise: str, wanted: str) -> int:
    """A number times what its unit stands for. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip())
    factor = factors.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} {otherwise}")
    product = Fraction(match[1]) * factor
    if product.denominator != 1:
        raise ValueError(f"{text!r} is no {wanted}, but {float(product):,}")
    return product.numerator


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
