"""`Consumer.local_transaction`: the application's keys and a partition's position change together.

The store is the only one that counts the position, so what a transaction has stored is never done
again, and what it has not stored leaves nothing: exactly once, as far as the application's keys are all
that its work changes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition
from .local.buffered import BufferedKeys
from .local.transaction import LocalTransaction
from .session import Session
from .stored_offset import StoredOffset


@contextmanager
def local_transaction(session: Session, name: TopicPartition | None) -> Iterator[LocalTransaction]:
    """As `Consumer.local_transaction` says. Belongs to the application's thread."""
    one_thread = session.one_thread
    outer = one_thread.enter()
    inside = one_thread.inside
    try:
        block = Block(session, name)
        try:
            session.asking.transaction = block
            with block.writing() as transaction:
                one_thread.inside = -inside  # as `let_in`
                try:
                    yield transaction
                finally:
                    one_thread.inside = inside
            block.done()
        except BaseException:
            block.left = True  # not a call: what interrupts the next line leaves the rest to who comes next
            block.take_back()
            raise
    finally:
        one_thread.inside = outer
        if one_thread.afterwards is not None:
            one_thread.do_afterwards()


class Block:
    """A local transaction: while it is `Asking.transaction`, nothing else moves positions.

    `left`: its block is over, but it has not been taken back yet. Raises InvalidArgumentError where there
    can be none, and what keeps the partition from being read.
    """

    def __init__(self, session: Session, name: TopicPartition | None) -> None:
        session.asking.check_no_transaction()
        if session.local_store is None:
            raise InvalidArgumentError("a local transaction needs offset_store=<folder>")
        self._session = session
        self._store = session.local_store
        self._partition = _in_hand(session) if name is None else session.assignment.find(name)
        if self._partition.position < 0 and self._partition.failure is not None:
            raise self._partition.failure
        self._first = session.hand_over.first_in_hand(self._partition)
        self.left = False

    def writing(self) -> AbstractContextManager[LocalTransaction]:
        """Leaving that stores keys and position."""
        return self._store.transaction(self._partition.key, self._position)

    def buffered(self) -> BufferedKeys:
        """The keys, for `make`."""
        return self._store.buffered(self._partition.key)

    def make(self, keys: BufferedKeys) -> None:
        """Store changes that were collected; taken back if that fails."""
        try:
            with self.writing() as transaction:
                keys.make(transaction)
            self.done()
        except BaseException:
            self.left = True
            self.take_back()
            raise

    def take_back(self) -> None:
        """What was in hand is read again; unless all is stored, and what came then was an interruption.

        May be done again when it was interrupted, as `done` may.
        """
        position, stored = self._position().offset, self._store.read(self._partition.key)
        if stored is not None and stored.offset == position != self._first:
            self.done()
            return
        self._session.asking.give_up_hand()
        self._session.seek(self._partition, self._first)
        self._session.asking.transaction = None

    def done(self) -> None:
        """It is stored, so the partition is settled."""
        self._session.commits.note({self._partition.key: self._position()})
        self._partition.settle()
        self._session.asking.transaction = None

    def _position(self) -> StoredOffset:
        session, partition = self._session, self._partition
        session.hand_over.note_progress()
        return session.commits.stored_offset(
            partition.name.topic, partition.position, partition.position_epoch
        )


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
