"""Names that a user may have meant."""

import pytest

from tailrace.protocol.limits import COMPARED_NAMES_MAX, NAME_LENGTH_MAX
from tailrace.protocol.similar import did_you_mean, similar_names

NAMES = ["flights", "flight-plans", "orders", "flightz", "flights-2"]


def test_the_best_come_first() -> None:
    assert similar_names("fligths", NAMES, 1) == ["flights"]
    assert similar_names("flights", NAMES, 3)[0] == "flights"
    assert len(similar_names("flights", NAMES, 3)) == 3
    assert similar_names("zebra", NAMES, 3) == []
    assert similar_names("flights", {}, 3) == []


@pytest.mark.parametrize(
    ("name", "count", "says"),
    [
        ("ordres", 1, "; did you mean 'orders'?"),
        ("flightss", 2, "; did you mean 'flights' or 'flights-2'?"),
        ("zebra", 3, ""),
    ],
)
def test_the_end_of_a_message(name: str, count: int, says: str) -> None:
    assert did_you_mean(name, NAMES, count) == says


def test_what_is_compared_is_bounded() -> None:
    """Of many names those whose length is nearest; nothing is compared with what is too long for a name."""
    many = {f"{'x' * 30}{number}" for number in range(10 * COMPARED_NAMES_MAX)} | {"orders"}
    assert similar_names("ordres", many, 1) == ["orders"]
    assert similar_names("x" * (NAME_LENGTH_MAX + 1), ["x" * NAME_LENGTH_MAX], 1) == []
