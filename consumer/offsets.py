"""Where a consumer's offsets are kept: what `Commits` asks of a store, and the two that there are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.pending import Frame
from tailrace.protocol.errors import (
    DataFolderError,
    ErrorCode,
    FencedMemberError,
    TailraceError,
    error_from,
)
from tailrace.protocol.group_messages import (
    CommitOffsets,
    FetchOffsets,
    OffsetCommit,
    OffsetsCommitted,
    OffsetsFetched,
)
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.messages import Reply
from tailrace.protocol.partition_sets import partition_set
from tailrace.protocol.record import TopicPartition

from .assigned import Key
from .local.store import LocalStore
from .stored_offset import StoredOffset

Offsets: TypeAlias = Mapping[Key, StoredOffset]
Done: TypeAlias = Callable[[TailraceError | None], None]


class Held(NamedTuple):
    """What is stored of the partitions that were taken, and why others could not be."""

    stored: dict[TopicPartition, StoredOffset | None]
    refused: dict[TopicPartition, DataFolderError]
    counts: Mapping[str, int] = {}
    """How many partitions the topics had when offsets of others of theirs were stored, if that is known."""


class OffsetStore(Protocol):
    """Belongs to the application's thread."""

    @property
    def remote(self) -> bool:
        """Does a write wait for another process? Auto-commit then does not wait for it."""

    def hold(self, wanted: Mapping[TopicPartition, bytes], timeout_s: float) -> Held:
        """Take partitions (with their topic's id) before they are read."""

    def ask(self, name: TopicPartition, topic_id: bytes, timeout_s: float) -> StoredOffset | None:
        """What is stored of one partition; a local store has those that are held."""

    def write(self, offsets: Offsets, timeout_s: float) -> None:
        """Durable on return. Raises TailraceError, and then some may be stored."""

    def write_later(self, offsets: Offsets, done: Done) -> None:
        """Begin to write; `done` is called once, perhaps in the I/O thread, when it is durable or failed."""

    def release(self, key: Key) -> None:
        """Let another consumer take the partition. Harmless if it is not held."""

    def close(self) -> None:
        """Release everything."""


class LocalOffsets:
    """In a folder on this machine, by `LocalStore`."""

    remote = False

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def hold(self, wanted: Mapping[TopicPartition, bytes], timeout_s: float) -> Held:
        """Lock them one by one; one that another process holds hurts no other."""
        held = Held({}, {})
        try:
            self._hold_each(wanted, held)
        except BaseException:
            for taken in held.stored:
                self._store.release((wanted[taken], taken.partition))
            raise
        return held

    def _hold_each(self, wanted: Mapping[TopicPartition, bytes], held: Held) -> None:
        for name, topic_id in wanted.items():
            try:
                held.stored[name] = self._store.hold(name, topic_id)
            except DataFolderError as error:
                held.refused[name] = error

    def ask(self, name: TopicPartition, topic_id: bytes, timeout_s: float) -> StoredOffset | None:
        """From the disk."""
        return self._store.read((topic_id, name.partition))

    def write(self, offsets: Offsets, timeout_s: float) -> None:
        """One transaction a partition."""
        self._store.write(offsets)

    def write_later(self, offsets: Offsets, done: Done) -> None:
        """At once."""
        try:
            self.write(offsets, 0.0)
        except TailraceError as error:
            done(error)
        else:
            done(None)

    def release(self, key: Key) -> None:
        """Unlock."""
        self._store.release(key)

    def close(self) -> None:
        """Unlock everything."""
        self._store.close()


class GroupOffsets:
    """At the coordinator, by group. `identity` gives the member id and epoch that a commit is made with."""

    remote = True

    def __init__(self, engine: Engine, group_id: str, identity: Callable[[], tuple[str, int]]) -> None:
        self._engine = engine
        self._group_id = group_id
        self._identity = identity

    def hold(self, wanted: Mapping[TopicPartition, bytes], timeout_s: float) -> Held:
        """Ask what is stored of their topics; the coordinator knows who holds what."""
        stored: dict[TopicPartition, StoredOffset | None] = dict.fromkeys(wanted)
        counts: dict[str, int] = {}
        names = {topic_id: name.topic for name, topic_id in wanted.items()}
        topics = self._engine.cluster.topics
        keys = [
            (topic_id, number)
            for topic_id in names
            if topic_id in topics
            for number in range(len(topics[topic_id].partitions))
        ]
        for (topic_id, number), offset in self._fetch(keys, timeout_s):
            name = TopicPartition(names[topic_id], number)
            counts[name.topic] = max(offset.partition_count, counts.get(name.topic, 0))
            if name in stored:
                stored[name] = offset
        return Held(stored, {}, counts)

    def ask(self, name: TopicPartition, topic_id: bytes, timeout_s: float) -> StoredOffset | None:
        """Whoever holds it."""
        key = topic_id, name.partition
        return dict(self._fetch([key], timeout_s)).get(key)

    def _fetch(self, keys: Sequence[Key], timeout_s: float) -> list[tuple[Key, StoredOffset]]:
        """What the group has stored of these."""
        stored = []
        for start in range(0, len(keys), PARTITIONS_PER_REQUEST_MAX):
            part = partition_set(keys[start : start + PARTITIONS_PER_REQUEST_MAX])
            request = partial(FetchOffsets, group_id=self._group_id, partitions=part)
            reply, _ = self._engine.call(COORDINATOR, request, timeout_s=timeout_s)
            if not isinstance(reply, OffsetsFetched):
                raise TailraceError(f"group {self._group_id}: asked for offsets, got {reply!r:.200}")
            stored += [
                (
                    (found.topic_id, found.partition),
                    StoredOffset(found.offset, found.leader_epoch, found.partition_count, found.metadata),
                )
                for found in reply.offsets
            ]
        return stored

    def write(self, offsets: Offsets, timeout_s: float) -> None:
        """Raises FencedMemberError or GroupNotEmptyError for what is not ours."""
        for request, keys in self._requests(offsets):
            reply, _ = self._engine.call(COORDINATOR, request, timeout_s=timeout_s)
            error = _refusal(reply, keys)
            if error is not None:
                raise error

    def write_later(self, offsets: Offsets, done: Done) -> None:
        """One attempt: what fails for a passing reason is committed with the next."""
        try:
            requests = self._requests(offsets)
        except FencedMemberError as error:
            done(error)
            return
        left = len(requests)
        failed: TailraceError | None = None

        def take(keys: list[Key], reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
            nonlocal left, failed
            left -= 1
            failed = _refusal(reply, keys) or failed
            if not left:
                done(failed)

        def send() -> None:
            for request, keys in requests:
                self._engine.request(COORDINATOR, request, on_reply=partial(take, keys))

        self._engine.submit(send)

    def release(self, key: Key) -> None:
        """Nothing is locked here."""

    def close(self) -> None:
        """Nothing is locked here."""

    def _requests(self, offsets: Offsets) -> list[tuple[partial[CommitOffsets], list[Key]]]:
        member_id, epoch = self._identity()
        entries = [
            OffsetCommit(*key, offset.offset, offset.leader_epoch, offset.metadata)
            for key, offset in offsets.items()
        ]
        keys = list(offsets)
        return [
            (
                partial(
                    CommitOffsets,
                    group_id=self._group_id,
                    member_id=member_id,
                    member_epoch=epoch,
                    offsets=tuple(entries[start : start + PARTITIONS_PER_REQUEST_MAX]),
                ),
                keys[start : start + PARTITIONS_PER_REQUEST_MAX],
            )
            for start in range(0, len(entries), PARTITIONS_PER_REQUEST_MAX)
        ]


class Identified(Protocol):
    """Who knows what commits are made with."""

    def identity(self) -> tuple[str, int]:
        """Member id and epoch."""


def store_of(
    engine: Engine, group_id: str | None, group: Identified | None, local: LocalStore | None
) -> OffsetStore | None:
    """A local folder if there is one, else the group's; None without either."""
    if local is not None:
        return LocalOffsets(local)
    if group_id is not None and group is not None:
        return GroupOffsets(engine, group_id, group.identity)
    return None


def _refusal(reply: Reply | TailraceError, keys: list[Key]) -> TailraceError | None:
    if isinstance(reply, TailraceError):
        return reply
    if not isinstance(reply, OffsetsCommitted) or len(reply.errors) not in (0, len(keys)):
        return TailraceError(f"committed {len(keys)} offsets, got {reply!r:.200}")
    errors = [error for error in reply.errors if error.code != ErrorCode.NONE]
    if not errors:
        return None
    more = f" ({len(errors)} of {len(keys)} offsets were refused)" if len(keys) > 1 else ""
    return error_from(errors[0].code, f"{errors[0].message}{more}")
