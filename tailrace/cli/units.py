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
_PLAIN: Final = re.compile(r"[0-9]{1,9}([.][0-9]{1,9})?")
_DURATION_FACTORS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


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


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `250ms`, `1.5s`, `5m`, `1h` or `7d`. Raises ValueError, also for a fraction of one."""
    otherwise = "is no duration; write one such as 30s, 5m, 1h or 7d"
    return _whole(text, _DURATION_FACTORS, otherwise, "whole number of milliseconds")


def _whole(text: str, factors: Mapping[str, int], otherwise: str, wanted: str) -> int:
    """A number times what its unit stands for. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip())
    factor = factors.get(match[2], factors.get(match[2].upper())) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} {otherwise}")
    product = Fraction(match[1]) * factor
    if product.denominator != 1:
        raise ValueError(f"{text!r} is no {wanted}, but {float(product):,}")
    return product.numerator


def parse_rate(text: str) -> float:
    """How many in a second `0.5`, `1e6` or `50k` are. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        return parse_count(text)


def parse_throttle(text: str) -> int:
    """Bytes a second of `50MiB` or `50MiB/s`; 0 of `none`. Raises ValueError."""
    return 0 if text == "none" else parse_size(text.removesuffix("/s"))


def parse_seconds(text: str) -> float:
    """Seconds of `30` or `0.5`, or of a duration such as `500ms` or `5m`. Raises ValueError."""
    return _time(text, "seconds", 1_000) / 1_000


def parse_some_seconds(text: str) -> float:
    """The same for a time that cannot be nothing."""
    seconds = parse_seconds(text)
    if not seconds:
        raise ValueError("it must be longer than nothing")
    return seconds


def parse_milliseconds(text: str) -> float:
    """Milliseconds of `30` or `0.5`, or of a duration such as `500ms` or `5m`. Raises ValueError."""
    return _time(text, "milliseconds", 1)


def _time(text: str, of_plain_numbers: str, factor: int) -> float:
    """Milliseconds."""
    if _PLAIN.fullmatch(text):
        return float(text) * factor
    try:
        return parse_duration_ms(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write {of_plain_numbers}, or one such as 500ms, 30s or 5m"
        ) from None


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
