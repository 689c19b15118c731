"""`Consumer.local_transaction`: the application's keys and a partition's position change together.

The store is the only one that counts the position, so what a transaction has stored is never done
again, and what it has not stored leaves nothing: exactly once, as far as the application's keys are all
that its work changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition
from .local.transaction import LocalTransaction
from .session import Session
from .stored_offset import StoredOffset


@contextmanager
def local_transaction(session: Session, name: TopicPartition | None) -> Iterator[LocalTransaction]:
    """As `Consumer.local_transaction` says. Belongs to the application's thread."""
    outer = session.one_thread.enter()
    try:
        session.asking.check_no_transaction()
        store = session.local_store
        if store is None:
            raise InvalidArgumentError("a local transaction needs offset_store=<folder>")
        partition = _in_hand(session) if name is None else session.assignment.find(name)
        if partition.position < 0 and partition.failure is not None:
            raise partition.failure
        first = session.hand_over.first_in_hand(partition)
        session.asking.in_transaction = True
        try:
            with store.transaction(partition.key, lambda: _position(session, partition)) as transaction:
                yield transaction
        except BaseException:
            session.asking.in_transaction = False
            session.asking.interfere()
            session.seek(partition, first)
            raise
        session.asking.in_transaction = False
        session.commits.note({partition.key: _position(session, partition)})
        partition.settle()
    finally:
        session.one_thread.inside = outer


def _in_hand(session: Session) -> AssignedPartition:
    """The one whose records the application is working on."""
    partitions = session.hand_over.in_hand()
    if len(partitions) == 1:
        return partitions[0]
    if not partitions:
        raise InvalidArgumentError(
            "no record is in hand: ask for some first, or name the partition: local_transaction(partition)"
        )
    few = ", ".join([*map(str, partitions[:5]), *(["..."] if len(partitions) > 5 else [])])
    raise InvalidArgumentError(
        f"records of {len(partitions)} partitions are in hand ({few}), "
        "and each has a store of its own: name the partition, local_transaction(partition)"
    )


def _position(session: Session, partition: AssignedPartition) -> StoredOffset:
    session.hand_over.note_progress()
    return session.commits.stored_offset(partition.name.topic, partition.position, partition.position_epoch)
