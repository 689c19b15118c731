"""Which faults come when. Pure: a seed and the same options always give the same plan."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, Literal

import msgspec

from tailrace.protocol.errors import InvalidArgumentError

Kind = Literal["kill", "stop", "partition", "disk-full"]
Target = Literal["leader", "follower", "coordinator", "all"]

KINDS: Final[tuple[Kind, ...]] = ("kill", "stop", "partition", "disk-full")
TARGETS: Final[dict[Kind, tuple[Target, ...]]] = {
    "kill": ("leader", "follower", "coordinator", "all"),
    "stop": ("leader", "follower", "coordinator", "all"),
    "partition": ("leader", "follower", "coordinator", "all"),
    "disk-full": ("leader", "follower"),
}
LASTS_S: Final[dict[Kind, tuple[float, float]]] = {
    "kill": (0.0, 4.0),
    "stop": (1.0, 10.0),
    "partition": (1.0, 8.0),
    "disk-full": (2.0, 5.0),
}
"""How long each lasts: from, to. A killed process is started again after so long."""
ALL_LASTS_S_MAX: Final = 3.0
"""Nothing is written while all are away: not for longer than this."""
PICKS: Final = 1 << 16


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. `pick` chooses among what `target` can mean when it begins, such as the partition."""

    number: int
    at_s: float
    kind: Kind
    target: Target
    lasts_s: float
    pick: int

    @property
    def name(self) -> str:
        """`kill leader`"""
        return f"{self.kind} {self.target}"


def kinds_of(text: str) -> tuple[Kind, ...]:
    """`kill,stop` as kinds. Raises InvalidArgumentError for what is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    kinds = tuple(kind for kind in KINDS if kind in names)
    unknown = [name for name in names if name not in KINDS]
    if unknown or not kinds:
        what = f"{unknown[0]!r} is no fault" if unknown else "no faults are named"
        raise InvalidArgumentError(f"{what}; there are {', '.join(KINDS)}")
    return kinds


def plan(seed: int, kinds: Sequence[Kind], *, duration_s: float, every_s: float) -> list[Fault]:
    """One fault in the middle of every `every_s`, in the order of their beginnings.

    Every kind comes with every target before any comes again.
    """
    random = Random(seed)
    deck = _deck(random, kinds)
    faults = []
    for number in range(max(1, int(duration_s / every_s))):
        kind, target = next(deck)
        least, most = LASTS_S[kind]
        if target == "all":
            most = ALL_LASTS_S_MAX
        faults.append(
            Fault(
                number=number,
                at_s=round((number + 0.5) * every_s, 3),
                kind=kind,
                target=target,
                lasts_s=round(random.uniform(least, min(most, max(least, 2 * every_s))), 3),
                pick=random.randrange(PICKS),
            )
        )
    return faults


def _deck(random: Random, kinds: Sequence[Kind]) -> Iterator[tuple[Kind, Target]]:
    cards = [(kind, target) for kind in kinds for target in TARGETS[kind]]
    while True:
        random.shuffle(cards)
        yield from cards
