"""Counts and names in messages."""

from collections.abc import Collection


def plural(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`, `3 batches`."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def were(count: int, noun: str) -> str:
    """`1 record was`, `2,000 records were`."""
    return f"{plural(count, noun)} {'was' if count == 1 else 'were'}"


def nodes_named(node_ids: Collection[object]) -> str:
    """`node 2`, `nodes 1, 3`."""
    return f"node{'' if len(node_ids) == 1 else 's'} {', '.join(map(str, node_ids))}"
