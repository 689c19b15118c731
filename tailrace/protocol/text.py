"""Counts in messages."""


def plural(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`, `3 batches`."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"
