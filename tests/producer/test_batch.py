"""A batch is what was put into it, in whichever way and order."""

from collections.abc import Sequence
from itertools import accumulate
from operator import is_
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailrace.producer.arguments import texts_of
from tailrace.producer.batch import RUN_RECORDS_MIN, UNSTAMPED, Batch
from tailrace.producer.columns import columns_of
from tailrace.producer.delivery import Outcome
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.parts import ascii_in_parts, joined

NUMBERS = range(100_000, 100_100)

COLUMNS = ("even", "uneven", "text", "texts", "null", "timed")
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["one", "torn", *COLUMNS]),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=12,
)


def bounds_of(values: Sequence[bytes | str], first: int) -> Sequence[int]:
    """Where each begins and the last ends, from `first` on."""
    ends = list(accumulate(map(len, values), initial=first))
    step = len(values[0])
    even = range(first, ends[-1] + 1, step) if step else ends
    return even if list(even) == ends else ends


@pytest.mark.parametrize("few", [1, 3, RUN_RECORDS_MIN])
def test_values_of_one_size_and_others_at_their_times(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.producer.batch.RUN_RECORDS_MIN", few)
    check_values_of_one_size_and_others()


@example([("even", 2, 1), ("even", 2, 3)], 5, False)
@example([("even", 2, 2), ("torn", 0, 3), ("uneven", 1, 3)], 5, False)
@given(steps=steps, first=st.sampled_from((0, 5, 2**31 - 3, 2**40)), roomy=st.booleans())
def check_values_of_one_size_and_others(steps: list[Step], first: int, roomy: bool) -> None:
    batch = Batch(Outcome("t", 0), bytes(16), 0, 0.0, 0.0)
    expected: list[bytes | None] = []
    stamps: list[int] = []
    for number, (kind, width, count) in enumerate(steps):
        value = bytes([number]) * width
        if kind == "one":
            batch.mark_time(len(batch.values), number)
            batch.values.append(value)
            expected.append(value)
            stamps.append(number)
        elif kind in COLUMNS and count:
            values: list[Any] = [value] * count
            values += {"uneven": [b"longer"], "texts": [b"longer"], "null": [None]}.get(kind, [])
            times: Any = [number // 2] * len(values) if kind == "timed" else number
            texts = kind in ("text", "texts")
            given_values = [item.decode() for item in values] if texts else values
            bounds = bounds_of(values, first) if kind not in ("null", "timed") else None
            batch.extend(given_values, None, None, times, bounds, texts=texts)
            expected += values
            stamps += times if kind == "timed" else [number] * len(values)
        elif kind == "torn":
            batch.mark_time(len(expected) + count, number)
            batch.runs.add(bounds_of([b"ab"] * (count + 1), first))
            batch.torn = True
            batch.mend()
    assert batch.length == len(expected)
    if expected:
        batch.encode(Compression.NONE, UNSTAMPED, memoryview(bytearray(10_000)) if roomy else None)
        found = decode(joined(batch.frame()))
        assert found.values == expected
        assert list(found.timestamps) == stamps


@pytest.mark.parametrize("values", [[b"x" * (at % 7) for at in range(100)], [b"1234"] * 100])
def test_what_was_counted_is_not_counted_again(values: list[bytes]) -> None:
    columns = columns_of(values, None, None, 0, serializers=(None, None))
    whole, parts = (Batch(Outcome("t", 0), bytes(16), 0, 0.0, 0.0) for _ in range(2))
    columns.pour(whole, 0, kept=True)
    for start in (0, 70):
        columns.cut(start, start + 70).pour(parts, 0, kept=True)
    assert whole.runs.count == len(values)
    assert parts.runs.count == (70 if len(set(values)) > 1 else len(values)), "those of a few are"
    for batch in (whole, parts):
        for _ in range(2):  # encoding may be interrupted, and done again
            column: Any = batch._value_column()
            assert column.lengths() == list(map(len, values))
        batch.encode(Compression.NONE, UNSTAMPED)
        assert batch.runs.count == 0, "it goes with the values"


def test_no_object_is_made_for_each_text() -> None:
    batch = Batch(Outcome("t", 0), bytes(16), 0, 0.0, 0.0)
    texts = [f"text {number}" for number in NUMBERS]
    columns = columns_of(texts, None, None, 0, serializers=(None, None))
    columns.pour(batch, 0, kept=True)
    assert all(map(is_, batch.values, texts))
    assert len(ascii_in_parts(texts, 1_100)) == 1
    batch.encode(Compression.NONE, UNSTAMPED)
    assert decode(joined(batch.frame())).values == [b"text %d" % number for number in NUMBERS]


def test_large_texts_go_in_parts() -> None:
    texts = ["a" * 20_000, "", "b" * 20_000, "c" * 20_000]
    parts = ascii_in_parts(texts, 60_000)
    assert b"".join(parts) == "".join(texts).encode()
    assert len(parts) == 2
    with pytest.raises(TypeError):
        ascii_in_parts([*texts, b"bytes"], 60_005)


class Named(str):
    """Is as long as it says."""

    __slots__ = ()

    def __len__(self) -> int:
        return 7


@pytest.mark.parametrize("values", [[], ["a", b"b"], ["a", None], [Named("a")], {"a"}], ids=repr)
def test_what_is_not_text_alone(values: Any) -> None:
    assert texts_of(values) is None
    assert texts_of(["a", "ä"]) == ["a", "ä"]
    assert texts_of(("a", "b")) == ("a", "b")
