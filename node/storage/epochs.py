"""The leader epochs of a log, and where each begins: what two replicas compare to find where they part.

Epochs and their start offsets rise together. An epoch that starts at the log's end has no batch yet, or
never had one. All but the last two functions are pure.
"""

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import schema

if TYPE_CHECKING:
    from lmdb import Transaction
    from lmdb import _Database as Database

Epochs: TypeAlias = tuple[tuple[int, int], ...]
"""(leader epoch, start offset), oldest first. Replaced as a whole, so that any thread may look."""

NO_EPOCH: Final = -1


def latest(epochs: Epochs) -> int:
    """The newest epoch, -1 if there is none."""
    return epochs[-1][0] if epochs else NO_EPOCH


def before(epochs: Epochs, offset: int) -> Epochs:
    """Those that start below `offset`: all that a log which ends there has batches of."""
    return epochs[: bisect_right(epochs, offset - 1, key=lambda entry: entry[1])]


def following(epochs: Epochs, epoch: int, offset: int, *, empty: bool) -> Epochs | None:
    """The epochs once a batch of `epoch` is at `offset`, the end of the log; None: that would be a step back.

    An epoch without a batch gives way: it was begun by a leader that stored nothing in it. In an `empty` log
    that holds for all of them.
    """
    if latest(epochs) == epoch:
        return epochs
    kept = before(epochs, offset)
    if empty:
        kept = tuple(entry for entry in kept if entry[0] <= epoch)
    if latest(kept) == epoch:
        return kept
    return None if latest(kept) > epoch else (*kept, (epoch, offset))


def end_of(epochs: Epochs, epoch: int, log_end_offset: int) -> tuple[int, int]:
    """(the highest epoch up to `epoch`, where it ends): at the next one's start, or the log's end.

    In a log that has none so low, `epoch` itself ends where the first one starts.
    """
    place = bisect_right(epochs, epoch, key=lambda entry: entry[0])
    end_offset = epochs[place][1] if place < len(epochs) else log_end_offset
    return (epochs[place - 1][0] if place else epoch), end_offset


def read_all(transaction: "Transaction[Any]", table: "Database") -> dict[int, Epochs]:
    """The epochs of all partitions, by partition id, in one pass."""
    found: dict[int, list[tuple[int, int]]] = {}
    for key, value in transaction.cursor(db=table):
        partition_id, epoch = schema.read_epoch_key(key)
        found.setdefault(partition_id, []).append((epoch, schema.read_number(value)))
    return {partition_id: tuple(entries) for partition_id, entries in found.items()}


def replace(
    transaction: "Transaction[Any]", table: "Database", partition_id: int, old: Epochs, new: Epochs
) -> None:
    """Store `new` where `old` is stored."""
    assert all(first[0] < second[0] and first[1] <= second[1] for first, second in pairwise(new[-3:]))
    kept = set(new)
    for epoch, start_offset in old:
        if (epoch, start_offset) not in kept:
            transaction.delete(schema.epoch_key(partition_id, epoch), db=table)
    for epoch, start_offset in kept.difference(old):
        transaction.put(schema.epoch_key(partition_id, epoch), schema.pack_number(start_offset), db=table)
