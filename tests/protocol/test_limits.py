"""Bounds: every one is a positive number, says what it counts, and fits what depends on it."""

import ast
from pathlib import Path

import pytest

from tailrace.protocol import limits

NAMES = [name for name in vars(limits) if name.isupper()]


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_positive_integers(name: str) -> None:
    assert type(getattr(limits, name)) is int
    assert getattr(limits, name) > 0


def test_bounds_are_final() -> None:
    for node in ast.parse(Path(limits.__file__).read_text()).body:
        if isinstance(node, ast.AnnAssign):
            assert ast.unparse(node.annotation) == "Final", ast.unparse(node)
        assert not isinstance(node, ast.Assign), ast.unparse(node)


def test_a_batch_fits_every_path_it_takes() -> None:
    assert limits.BATCH_BYTES_MAX <= limits.FRAME_BYTES_MAX
    assert limits.BATCH_BYTES_MAX <= limits.GROUP_COMMIT_BYTES_MAX
    assert limits.BATCH_BYTES_MAX <= limits.FETCH_BYTES_MAX
    assert limits.RECORD_BYTES_MAX < limits.BATCH_BYTES_MAX


def test_numbers_fit_their_fields() -> None:
    assert limits.BATCH_BODY_BYTES_MAX < 2**31, "offsets of a column are int32"
    assert limits.BATCH_RECORDS_MAX < 2**31
    assert limits.PARTITIONS_PER_TOPIC_MAX < 2**31
