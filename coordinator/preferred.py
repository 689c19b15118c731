"""Leadership goes back to the first replica once that is alive and in sync again: pure, time comes as `now`.

After a node has died others lead its partitions too. Without this they would for ever, and a cluster
that was restarted node by node would have its load on the node that stopped last.
"""

from itertools import groupby
from typing import Final, NamedTuple

from tailrace.protocol.cluster import PartitionChanged, PartitionInfo

from .election import Rules, elect_preferred
from .partition_changes import changed
from .state import State

QUIET_S: Final = 5.0
"""So long no node has come or gone before leaders are moved back: while nodes start there is enough to do.
Also the time between two looks at what has become possible."""
SLICE_PAUSE_S: Final = 0.5
"""Between two slices."""
SLICE_MAX: Final = 500
"""Partitions that get another leader at once: their clients have to find it."""


class Slice(NamedTuple):
    """Partitions that their first replicas lead from now on, and whether there are more of them."""

    changes: tuple[PartitionChanged, ...]
    more: bool


def next_slice(state: State, limit: int, topics: frozenset[bytes] | None = None) -> Slice:
    """The first `limit` partitions, in order, that can be led as preferred and are not; of these topics."""
    alive, draining = state.alive(), state.draining()
    able = alive - draining
    places = sorted(
        place
        for node_id, displaced in state.index.displaced.items()
        if node_id in able
        for place in displaced
        if topics is None or place[0] in topics
    )
    grouped = [
        (topic_id, [index for _, index in group]) for topic_id, group in groupby(places, lambda p: p[0])
    ]
    changes = changed(state, grouped, _elect, alive=alive, draining=draining)
    return Slice(tuple(changes[:limit]), len(changes) > limit)


def _elect(partition: PartitionInfo, rules: Rules) -> PartitionInfo:
    return elect_preferred(partition, rules)


class PreferredLeaders:
    """When to look for leaders to move back."""

    def __init__(self, now: float) -> None:
        self._look_at = now + QUIET_S

    def node_changed(self, now: float) -> None:
        """A node has come or gone."""
        self._look_at = now + QUIET_S

    def looked(self, now: float, *, more: bool) -> None:
        """A slice was moved; `more` wait."""
        self._look_at = now + (SLICE_PAUSE_S if more else QUIET_S)

    def next_look(self, state: State) -> float | None:
        """When to look; None while all partitions are led as preferred."""
        return self._look_at if state.index.displaced else None
