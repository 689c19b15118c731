"""What `consume` prints of a batch: against batches that the codec made."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.cli.record_format import format_string, json_lines, unescape, values_only
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.decoding import Decoding
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.record import TopicPartition


@pytest.fixture
def batch() -> ColumnBatch:
    headers = [(), (("trace", b"1"), ("empty", None)), ()]
    data = encode([b"one", None, b"\xff\xfe"], [b"k", None, b""], [1_000, 2_000, 3_000], headers)
    return ColumnBatch(TopicPartition("t", 4), decode(data), 0, Decoding(None, None))


def test_values_only(batch: ColumnBatch) -> None:
    assert values_only(batch, 3) == b"one\n\n\xff\xfe\n"
    assert values_only(batch, 1) == b"one\n"


def test_format_string_knows_every_field(batch: ColumnBatch) -> None:
    printed = format_string(r"%t/%p/%o/%T/%k/%K/%s/%S/%h/%%\t\x41\\\n")
    assert printed(batch, 2) == b"t/4/0/1000/k/1/one/3//%\tA\\\nt/4/1/2000//-1//-1/trace=1,empty=/%\tA\\\n"


def test_json_lines(batch: ColumnBatch) -> None:
    lines = [json.loads(line) for line in json_lines(batch, 3).splitlines()]
    place = {"topic": "t", "partition": 4}
    assert lines == [
        {**place, "offset": 0, "timestamp": 1_000, "key": "k", "value": "one"},
        {
            **place,
            "offset": 1,
            "timestamp": 2_000,
            "key": None,
            "value": None,
            "headers": [{"name": "trace", "value": "1"}, {"name": "empty", "value": None}],
        },
        {**place, "offset": 2, "timestamp": 3_000, "key": "", "value_hex": "fffe"},
    ]


def test_escapes_alone() -> None:
    assert unescape(r"a\t\x00%k\\é") == b"a\t\0%k\\" + "é".encode()
    with pytest.raises(ValueError, match="unknown escape"):
        unescape(r"\q")


@pytest.mark.parametrize("text", ["%z", "%", r"\q", "a\\", r"\xg1"])
def test_unknown_formats_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown (format|escape)"):
        format_string(text)


@given(st.text(st.characters(exclude_characters="%\\", exclude_categories=("Cs",))))
def test_other_text_stands_for_itself(text: str) -> None:
    data = encode([b"v"])
    batch = ColumnBatch(TopicPartition("t", 0), decode(data), 0, Decoding(None, None))
    assert format_string(text)(batch, 1) == text.encode()
