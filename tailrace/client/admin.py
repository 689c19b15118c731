"""The admin client: create, delete and look at topics, look at the cluster."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from time import monotonic
from types import TracebackType
from typing import Final

from tailrace.protocol.cluster import NO_LEADER, ClusterState
from tailrace.protocol.errors import (
    InvalidConfigError,
    InvalidTopicError,
    LeaderNotAvailableError,
    NotEnoughNodesError,
    TailraceError,
    TimedOutError,
    TopicExistsError,
    UnknownTopicError,
)
from tailrace.protocol.limits import NODES_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICATION_FACTOR_MAX
from tailrace.protocol.messages import (
    EARLIEST,
    LATEST,
    AlterTopic,
    CreateTopic,
    DeleteTopic,
    DescribeLogs,
    LogsDescribed,
    Request,
    TopicAltered,
    TopicCreated,
    TopicDeleted,
)
from tailrace.protocol.record import TopicPartition

from . import descriptions
from .admin_calls import checked, left_s
from .arguments import INT32_MAX, INT64_MAX, check_int, items_of, list_of, partition_of
from .descriptions import ClusterDescription, NodeLogs, OffsetAndTimestamp, TopicDescription
from .engine import Engine
from .group_admin import GroupAdmin
from .lifecycle import OfOneProcess
from .offsets import list_offsets
from .options import keyword_options, reject_unknown
from .placement_admin import PlacementAdmin
from .retry import Backoff

CREATE_TIMEOUT_MS_MAX: Final = 600_000
"""The longest time that the coordinator is asked to wait for the nodes."""
NODES_AWAITED_S: Final = 5.0
"""How long `create_topic` waits for enough nodes to be alive."""
_numbers = itertools.count(1)


class Admin(GroupAdmin, PlacementAdmin, OfOneProcess):
    """Creates, alters, deletes and describes topics and groups, describes the cluster, moves partitions.

    Nothing is connected to before it is needed, so that only calls raise ConnectionFailedError,
    with each address and why it could not be used. `request_timeout_ms` is how long a call may take
    unless it is given a `timeout_ms`. Safe to use from several threads. To be closed, best by `with`.

    Raises InvalidArgumentError for unknown options and for addresses that do not parse. docs/options.md has
    the options, and those of topics.
    """

    EARLIEST: Final = EARLIEST
    """In place of a timestamp in `list_offsets`: the first offset that is still there."""
    LATEST: Final = LATEST
    """In place of a timestamp in `list_offsets`: the offset that the next record to be read will have."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070",
        *,
        request_timeout_ms: int = 30_000,
        **unknown: object,
    ) -> None:
        reject_unknown("Admin", unknown, keyword_options(Admin.__init__))
        check_int("request_timeout_ms", request_timeout_ms, 1, INT32_MAX)
        self._engine = Engine(
            bootstrap_servers, request_timeout_ms=request_timeout_ms, name=f"admin-{next(_numbers)}"
        )
        self._engine.start()

    def __enter__(self) -> "Admin":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls that wait in other threads raise ClosedError."""
        self._engine.close()

    def ready(self, timeout_ms: int | None = None, *, nodes: int = 1) -> None:
        """Wait until the cluster can work: `nodes` nodes are alive and every partition has a leader.

        Raises ConnectionFailedError when no coordinator answers in time, NotEnoughNodesError or
        LeaderNotAvailableError with what was missing at the end.
        """
        check_int("nodes", nodes, 1, NODES_MAX)
        deadline = self._deadline(timeout_ms)
        self._engine.ready(left_s(deadline))
        backoff = Backoff(Random(), longest_s=0.1)
        problem: TailraceError | None = None
        while True:
            try:
                state = self._engine.refresh(left_s(deadline))
            except TimedOutError as error:
                raise problem or error from None  # what was missing says more than that time is over
            problem = _not_ready(state, nodes)
            if problem is None:
                return
            pause_s = backoff.pause()
            if left_s(deadline) <= pause_s:
                raise problem
            self._engine.pause(pause_s)

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int = 1,
        config: Mapping[str, str | int] | None = None,
        *,
        exist_ok: bool = False,
        timeout_ms: int | None = None,
    ) -> TopicDescription:
        """Create a topic, and return when it can be written.

        `config` has the keys of `TopicDescription.config`. With `exist_ok` a topic that is there already is
        left as it is, and described. When a reply was lost and the retry finds the topic exactly as it was
        asked for, that counts as created.

        Raises TopicExistsError, InvalidTopicError, InvalidConfigError, LimitExceededError;
        NotEnoughNodesError after NODES_AWAITED_S (`ready(nodes=N)` waits longer); TimedOutError when
        nodes have not heard of the topic in time: it exists then, and can be written as they do.
        """
        _check_name(name)
        check_int("partitions", partitions, 1, PARTITIONS_PER_TOPIC_MAX)
        check_int("replication_factor", replication_factor, 1, REPLICATION_FACTOR_MAX)
        deadline = self._deadline(timeout_ms)
        settings = _settings(config)
        attempts = 0

        def request(request_id: int) -> Request:
            nonlocal attempts
            attempts += 1
            return CreateTopic(
                request_id,
                name=name,
                partitions=partitions,
                replication_factor=replication_factor,
                config=settings,
                timeout_ms=_wait_ms(deadline),
            )

        try:
            reply = self._create(request, deadline)
        except TopicExistsError:
            if attempts == 1 and not exist_ok:
                raise
            topic = self.describe_topic(name, timeout_ms=_left_ms(deadline))
            if exist_ok:
                return topic
            if not _as_asked(topic, partitions, replication_factor, settings):
                raise
            ends = dict.fromkeys((TopicPartition(name, index) for index in range(partitions)), LATEST)
            list_offsets(self._engine, ends, left_s(deadline))
            return topic
        return _described(reply)

    def _create(self, request: Callable[[int], Request], deadline: float) -> TopicCreated:
        """Ask; for NODES_AWAITED_S again while too few nodes are alive, as in a cluster that starts."""
        nodes_until = min(deadline, monotonic() + NODES_AWAITED_S)
        backoff = Backoff(Random())
        while True:
            try:
                return self._call(TopicCreated, request, deadline, (NotEnoughNodesError, TimedOutError))
            except NotEnoughNodesError:
                pause_s = backoff.pause()
                if monotonic() + pause_s >= nodes_until:
                    raise
                self._engine.pause(pause_s)

    def alter_topic(
        self,
        name: str,
        partitions: int | None = None,
        config: Mapping[str, str | int | None] | None = None,
        *,
        timeout_ms: int | None = None,
    ) -> TopicDescription:
        """Give a topic more partitions (`partitions` in all) and other settings; None sets a default.

        Returns when the new partitions can be written; from then on a key may go to another partition.
        Raises UnknownTopicError, InvalidConfigError (also for fewer partitions), LimitExceededError,
        NotEnoughNodesError, TimedOutError as `create_topic`.
        """
        _check_name(name)
        if partitions is not None:
            check_int("partitions", partitions, 1, PARTITIONS_PER_TOPIC_MAX)
        settings = _changed_settings(config)
        deadline = self._deadline(timeout_ms)
        attempts = 0

        def request(request_id: int) -> Request:
            nonlocal attempts
            attempts += 1
            return AlterTopic(
                request_id,
                name=name,
                partitions=partitions or 0,
                config=settings,
                timeout_ms=_wait_ms(deadline),
            )

        reply = self._call(TopicAltered, request, deadline, (NotEnoughNodesError, TimedOutError))
        if attempts > 1 and partitions is not None:
            # The answer that was lost waited for the leaders; a repeated request finds nothing to do.
            ends = dict.fromkeys((TopicPartition(name, index) for index in range(partitions)), LATEST)
            list_offsets(self._engine, ends, left_s(deadline))
        return _described(reply)

    def delete_topic(self, name: str, *, timeout_ms: int | None = None) -> None:
        """Delete a topic and its records; there is no way back.

        Raises UnknownTopicError with similar names, unless the topic was missing at a retry only.
        """
        _check_name(name)
        request = partial(DeleteTopic, name=name)
        self._remove(TopicDeleted, request, self._deadline(timeout_ms), UnknownTopicError)

    def list_topics(self, *, timeout_ms: int | None = None) -> list[str]:
        """The names of all topics, in order."""
        return sorted(self._refreshed(timeout_ms).topic_ids)

    def describe_topic(self, name: str, *, timeout_ms: int | None = None) -> TopicDescription:
        """One topic. Raises UnknownTopicError with similar names."""
        return self.describe_topics([name], timeout_ms=timeout_ms)[0]

    def describe_topics(
        self, names: Iterable[str] | None = None, *, timeout_ms: int | None = None
    ) -> list[TopicDescription]:
        """The topics of these names in their order, or all in the order of theirs.

        Raises UnknownTopicError with similar names.
        """
        chosen = None if names is None else list_of("names", names)
        for name in chosen or ():
            _check_name(name)
        state = self._refreshed(timeout_ms)
        wanted = sorted(state.topic_ids) if chosen is None else chosen
        return [descriptions.describe_topic(state.existing_topic(name)) for name in wanted]

    def describe_cluster(self, *, timeout_ms: int | None = None) -> ClusterDescription:
        """The nodes, and the names of the topics."""
        state = self._refreshed(timeout_ms)
        engine = self._engine
        return descriptions.describe_cluster(engine.cluster_id, state, engine.unclean_elections)

    def describe_logs(
        self, node_ids: Iterable[int] | None = None, *, timeout_ms: int | None = None
    ) -> dict[int, NodeLogs]:
        """What these nodes hold, or all that are alive: offsets and sizes of each log, space used.

        Raises ConnectionFailedError or TimedOutError when one of them does not answer.
        """
        chosen = None if node_ids is None else list_of("node_ids", node_ids)
        for node_id in chosen or ():
            check_int("node_ids", node_id, 0, INT32_MAX)
        deadline = self._deadline(timeout_ms)
        state = self._engine.refresh(left_s(deadline))
        alive = sorted(node.node_id for node in state.nodes.values() if node.alive)
        wanted = alive if chosen is None else chosen
        answers = {node: self._engine.ask(node, DescribeLogs, timeout_s=left_s(deadline)) for node in wanted}
        logs = {}
        for node_id, answer in answers.items():
            reply, _ = answer.wait(left_s(deadline))
            logs[node_id] = descriptions.describe_logs(node_id, checked(LogsDescribed, reply), state)
        return logs

    def list_offsets(
        self, timestamps: Mapping[TopicPartition, int], *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first offset at or after each timestamp (milliseconds since 1970), or EARLIEST or LATEST.

        None where there is no such record. Raises UnknownTopicError, UnknownPartitionError,
        LeaderNotAvailableError.
        """
        places = {
            partition_of(place): check_int("timestamp", timestamp, EARLIEST, INT64_MAX)
            for place, timestamp in items_of("timestamps", timestamps)
        }
        found = list_offsets(self._engine, places, left_s(self._deadline(timeout_ms)))
        return {place: at if at.offset >= 0 else None for place, at in found.items()}


def _described(reply: TopicCreated | TopicAltered) -> TopicDescription:
    if reply.topic is None:
        raise TailraceError(f"{type(reply).__name__} without a topic")
    return descriptions.describe_topic(reply.topic)


def _left_ms(deadline: float) -> int:
    return int(left_s(deadline) * 1000)


def _wait_ms(deadline: float) -> int:
    """A little less than there is, so that the coordinator's own answer comes in time."""
    return int(min(left_s(deadline) * 900, CREATE_TIMEOUT_MS_MAX))


def _check_name(name: object) -> None:
    """The coordinator knows what a name may be; only what could not be sent to it is refused here."""
    if not isinstance(name, str) or not name.isprintable():
        raise InvalidTopicError(f"a topic's name is text, not {name!r:.100}")


def _settings(config: Mapping[str, str | int] | None) -> dict[str, str | int]:
    """The coordinator checks names and values; only what could not be sent to it is refused here."""
    settings = dict(items_of("config", {} if config is None else config))
    for key, value in settings.items():
        if not isinstance(key, str) or not isinstance(value, str | int):
            raise InvalidConfigError(
                f"topic config {key!r} is {value!r}; it must be a whole number or a boolean"
            )
        settings[key] = str(value).lower() if isinstance(value, bool) else value
    return settings


def _changed_settings(config: Mapping[str, str | int | None] | None) -> dict[str, str | int | None]:
    """As `_settings`, with None for what is to have its default."""
    changed = dict(items_of("config", {} if config is None else config))
    return changed | _settings({key: value for key, value in changed.items() if value is not None})


def _not_ready(state: ClusterState, nodes: int) -> TailraceError | None:
    alive = sum(node.alive for node in state.nodes.values())
    if alive < nodes:
        are = "1 node is" if alive == 1 else f"{alive} nodes are"
        return NotEnoughNodesError(f"{are} alive, {nodes} {'is' if nodes == 1 else 'are'} needed")
    for topic in state.topics.values():
        for index, partition in enumerate(topic.partitions):
            if partition.leader == NO_LEADER:
                return LeaderNotAvailableError(f"{topic.name}-{index} has no live leader")
    return None


def _as_asked(
    topic: TopicDescription, partitions: int, replication_factor: int, config: Mapping[str, str | int]
) -> bool:
    settings = {key.replace(".", "_"): _plain(value) for key, value in config.items()}
    there = {key: _plain(value) for key, value in topic.config.items()}
    same_shape = (len(topic.partitions), topic.replication_factor) == (partitions, replication_factor)
    return same_shape and settings.items() <= there.items()


def _plain(value: str | int) -> str:
    """A number, or true or false, however it was given."""
    text = str(value).strip().lower()
    return text if text in ("true", "false") else str(int(text))
