"""Sizes and durations as people write and read them."""

import pytest

from tailrace.cli.units import (
    human_bytes,
    human_count,
    parse_count,
    parse_duration_ms,
    parse_milliseconds,
    parse_rate,
    parse_seconds,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1B", 1),
        ("1kib", 1024),
        ("64GiB", 64 << 30),
        ("64 GiB", 64 << 30),
        ("1TB", 10**12),
        ("1.5KiB", 1536),
        ("0.5 MB", 500_000),
        ("1.000", 1),
        ("0.1GB", 10**8),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1.GiB", ".5KiB", "1,5KiB", "1k", "1 PiB", "64G", "1e9", "١"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "bytes_told"), [("1.1KiB", "1,126.4"), ("0.5", "0.5"), ("1.25B", "1.25")])
def test_what_are_no_whole_bytes(text: str, bytes_told: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no whole number of bytes, but {bytes_told}$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("1000000", 10**6), ("1M", 10**6), ("500k", 500_000), ("1.5 K", 1_500), ("0.001G", 10**6)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1KiB", "1kB", "1e6", "1,000", "nan", "١"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match="is no count; write a number, or one such as 500k or"):
        parse_count(text)


@pytest.mark.parametrize(("text", "number"), [("1.5", "1.5"), ("0.0001k", "0.1")])
def test_what_is_no_whole_count(text: str, number: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no whole number, but {number}$"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        ("1.5h", 5_400_000),
        ("0.5 s", 500),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1,5h", "1w", "5M", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("0.25", 0.25), ("250ms", 0.25), ("2m", 120.0), ("1.5h", 5_400.0)]
)
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1.5w", "nan", "inf", "1e3", "١"])
def test_what_are_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write seconds, or one such as"):
        parse_seconds(text)


def test_what_people_read() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
    assert human_count(1_234_567.0) == "1,234,567"


def test_milliseconds() -> None:
    assert [parse_milliseconds(text) for text in ("5", "0.5", "0", "1s")] == [5.0, 0.5, 0.0, 1_000.0]
    with pytest.raises(ValueError, match="'soon' is no time; write milliseconds, or one such as"):
        parse_milliseconds("soon")


def test_rates() -> None:
    assert [parse_rate(text) for text in ("0.5", "1e6", "50k")] == [0.5, 1e6, 50_000.0]
    with pytest.raises(ValueError, match="'fast' is no count"):
        parse_rate("fast")
