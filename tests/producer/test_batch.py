"""A batch is what was put into it, in whichever way and order."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.producer.batch import UNSTAMPED, Batch
from tailrace.producer.delivery import Outcome
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.parts import joined

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["one", "even", "other", "timed", "torn"]), st.integers(0, 3), st.integers(0, 5)
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
