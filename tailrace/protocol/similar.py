"""Names that a user may have meant, for messages about one that nobody knows."""

import difflib
from collections.abc import Collection
from heapq import nsmallest

from .limits import COMPARED_NAMES_MAX, NAME_LENGTH_MAX


def similar_names(name: str, known: Collection[str], count: int) -> list[str]:
    """Up to `count` of `known`, best first."""
    if len(name) > NAME_LENGTH_MAX:
        return []
    if len(known) > COMPARED_NAMES_MAX:  # comparing takes up to 40 us a name
        known = nsmallest(COMPARED_NAMES_MAX, known, key=lambda other: abs(len(other) - len(name)))
    return difflib.get_close_matches(name, known, n=count)


def did_you_mean(name: str, known: Collection[str], count: int = 1) -> str:
    """`"; did you mean 'x' or 'y'?"`, for the end of a message; empty if nothing is similar."""
    similar = similar_names(name, known, count)
    return f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""
