"""Counts, times and names in messages."""

from collections.abc import Collection


def plural(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`, `3 batches`."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def were(count: int, noun: str) -> str:
    """`1 record was`, `2,000 records were`."""
    return f"{plural(count, noun)} {'was' if count == 1 else 'were'}"


def span(seconds: float) -> str:
    """How long something took: `2.5 s`, `10 ms`."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def told(error: object) -> str:
    """What an error of the application's says, whose own code may fail at that."""
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001 - whatever that raises; the error itself is what counts
        return f"(its text cannot be made: {type(another).__name__})"


def nodes_named(node_ids: Collection[object]) -> str:
    """`node 2`, `nodes 1, 3`."""
    return f"node{'' if len(node_ids) == 1 else 's'} {', '.join(map(str, node_ids))}"
