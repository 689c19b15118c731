"""Where to start reading: the grammar, and places within what a partition holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.cli.offsets import OffsetRange, Place, parse_offsets

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("start", OffsetRange(Place("start"))),
        ("end", OffsetRange(Place("end"))),
        ("47", OffsetRange(Place("offset", 47))),
        ("+2", OffsetRange(Place("start", 2))),
        ("-3", OffsetRange(Place("end", -3))),
        (":end", OffsetRange(Place("start"), last=Place("end"))),
        ("10:20", OffsetRange(Place("offset", 10), last=Place("offset", 20))),
        ("-5:", OffsetRange(Place("end", -5))),
        (":", OffsetRange(Place("start"))),
        ("@1700", OffsetRange(Place("end"), timestamp=1_700)),
        ("@-1h", OffsetRange(Place("end"), timestamp=NOW_MS - 3_600_000)),
        ("@2013-01-01", OffsetRange(Place("end"), timestamp=1_356_998_400_000)),
        ("@2013-01-01T01:00:00+01:00", OffsetRange(Place("end"), timestamp=1_356_998_400_000)),
        ("@2013-01-01T00:00Z", OffsetRange(Place("end"), timestamp=1_356_998_400_000)),
    ],
)
def test_the_grammar(text: str, parsed: OffsetRange) -> None:
    assert parse_offsets(text, NOW_MS) == parsed


@pytest.mark.parametrize(
    "text", ["", "begin", "1.5", "--1", "+", "@", "@yesterday", "@-1", "@-h", "1:2:3", "a:b"]
)
def test_what_is_no_offset(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (place|time)"):
        parse_offsets(text, NOW_MS)


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("@-2h:-1h", NOW_MS - 2 * HOUR, NOW_MS - HOUR),
        ("@-1h:@-5m", NOW_MS - HOUR, NOW_MS - HOUR // 12),
        ("@0:9", 0, 9),
        ("@2013-01-01:2013-01-02", 1_356_998_400_000, 1_356_998_400_000 + 24 * HOUR),
        ("@2013-01-01T00:00:+30m", 1_356_998_400_000, 1_356_998_400_000 + HOUR // 2),
        ("@2013-01-01T01:00+01:00:2013-01-01T01:00:00Z", 1_356_998_400_000, 1_356_998_400_000 + HOUR),
    ],
)
def test_times_on_both_sides(text: str, first: int, last: int) -> None:
    assert parse_offsets(text, NOW_MS) == OffsetRange(Place("end"), first, last_timestamp=last)


def test_a_time_with_an_open_side() -> None:
    assert parse_offsets("@5:", NOW_MS) == OffsetRange(Place("end"), 5)
    assert parse_offsets("@5:end", NOW_MS) == OffsetRange(Place("end"), 5, last=Place("end"))


@pytest.mark.parametrize("text", ["10:@-1h", "@-1h:@-2h", "@9:8", "@-1h:-5", "@1:2:3", "@2013-01-01:start"])
def test_what_is_no_range_of_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (time|duration)|ends before it begins"):
        parse_offsets(text, NOW_MS)


@pytest.mark.parametrize(
    ("place", "offset"),
    [
        (Place("start"), 100),
        (Place("end"), 200),
        (Place("start", 5), 105),
        (Place("end", -5), 195),
        (Place("offset", 150), 150),
        (Place("offset", 3), 100),
        (Place("offset", 999), 200),
        (Place("end", -999), 100),
        (Place("start", 999), 200),
    ],
)
def test_places_in_a_partition(place: Place, offset: int) -> None:
    assert place.resolve(100, 200) == offset


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_offsets(text, NOW_MS)
    except ValueError:
        return
    assert 5 <= parsed.first.resolve(5, 9) <= 9
