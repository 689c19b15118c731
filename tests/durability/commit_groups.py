"""Commits to a store of groups, the same ones for a seed, and says each on a socket.

python commit_groups.py FOLDER SEED [--no-sync]
"""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lmdb

from tailrace.coordinator.groups.changes import (
    ConsumerGroup,
    GroupChange,
    GroupChanged,
    GroupRemoved,
    OffsetDropped,
    OffsetStored,
)
from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.protocol.group_messages import CommittedOffset

COMMITS = 300
TOPICS = [bytes([number]) * 16 for number in range(3)]


def commits(seed: int) -> Iterator[list[GroupChange]]:
    """What is committed, one transaction each: many offsets, a few deletions of them and of groups."""
    random = Random(seed)
    state = GroupsState()
    for number in range(COMMITS):
        changes: list[GroupChange] = []

        def make(change: GroupChange, changes: list[GroupChange] = changes) -> None:
            state.apply(change)
            changes.append(change)

        group_id = f"group-{random.randrange(4)}"
        if group_id not in state.groups:
            make(GroupChanged(group_id, ConsumerGroup(number)))
        for _ in range(random.choice((1, 5, 60))):
            place = (random.choice(TOPICS), random.randrange(50))
            make(
                OffsetStored(group_id, CommittedOffset(*place, number, 1, "m" * random.randrange(100), 5, 50))
            )
        if random.random() < 0.2:
            for key in random.sample(sorted(state.groups[group_id].offsets), 1):
                make(OffsetDropped(group_id, *key))
        if random.random() < 0.03:
            make(GroupRemoved(group_id))
        yield changes


def main(folder: str, seed: str, *flags: str) -> None:
    """See the head of the module."""
    if "--no-sync" in flags:
        opened = lmdb.Environment
        lmdb.open = lambda *args, **options: opened(*args, **(options | {"sync": False}))
    store = LmdbGroupStore(Path(folder))
    ours, theirs = socket.socketpair()
    for number, changes in enumerate(commits(int(seed))):
        store.commit(changes)
        ours.send(b"%d" % number)
        theirs.recv(16)
    store.close()
    ours.close()
    theirs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
