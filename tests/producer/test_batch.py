"""A batch is what was put into it, in whichever way and order."""

from operator import is_
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.producer.arguments import ascii_of
from tailrace.producer.batch import UNSTAMPED, Batch
from tailrace.producer.columns import columns_of
from tailrace.producer.delivery import Outcome
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.parts import ascii_in_parts, joined

NUMBERS = range(100_000, 100_100)

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["one", "even", "text", "texts", "other", "timed", "torn"]),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=12,
)


@given(steps=steps, roomy=st.booleans())
def test_values_of_one_size_and_others_at_their_times(steps: list[Step], roomy: bool) -> None:
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
        elif kind == "even" and count:
            batch.extend([value] * count, None, None, number, width)
            expected += [value] * count
            stamps += [number] * count
        elif kind == "text" and count:
            batch.extend([value.decode()] * count, None, None, number, width, texts=True)
            expected += [value] * count
            stamps += [number] * count
        elif kind == "texts" and count:
            batch.extend([value.decode(), *["longer"] * count], None, None, number, texts=True)
            expected += [value, *[b"longer"] * count]
            stamps += [number] * (count + 1)
        elif kind == "other" and count:
            batch.extend([None, *[value] * count], None, None, number)
            expected += [None, *[value] * count]
            stamps += [number] * (count + 1)
        elif kind == "timed" and count:
            batch.extend([value] * count, None, None, [number // 2] * count)
            expected += [value] * count
            stamps += [number // 2] * count
        elif kind == "torn":
            batch.mark_time(len(expected) + count, number)
            batch.torn = True
            batch.mend()
    assert batch.length == len(expected)
    if expected:
        batch.encode(Compression.NONE, UNSTAMPED, memoryview(bytearray(10_000)) if roomy else None)
        found = decode(joined(batch.frame()))
        assert found.values == expected
        assert list(found.timestamps) == stamps


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


@pytest.mark.parametrize("values", [[], ["a", b"b"], ["a", None], ["a", "ä"], [Named("a")], {"a"}], ids=repr)
def test_what_is_not_text_of_ascii_alone(values: Any) -> None:
    assert ascii_of(values) is None
    assert ascii_of(["a", "b"]) == ["a", "b"]
    assert ascii_of(("a", "b")) == ("a", "b")
