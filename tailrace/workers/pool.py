"""`tailrace.workers.Pool`: a handler, run by processes that share the partitions of its topics."""

import os
import select
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from tailrace.client.admin import Admin
from tailrace.client.arguments import (
    FOR_EVER_S,
    INT32_MAX,
    check_int,
    check_timeout,
    seconds_of,
)
from tailrace.client.descriptions import TopicDescription
from tailrace.client.options import keyword_options, reject_unknown
from tailrace.client.serializers import Deserializer, Serializer, deserializer_of, serializer_of
from tailrace.client.waiting import wait_in_steps
from tailrace.consumer.arguments import topics_of
from tailrace.consumer.config import OPTIONS as CONSUMER_OPTIONS
from tailrace.consumer.config import ConsumerConfig
from tailrace.processes.signal_pipe import SignalPipe, stop_signals
from tailrace.protocol.errors import ClosedError, InvalidArgumentError, TailraceError, WorkerFailedError
from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import plural

from .arguments import check_handler
from .keeper import STOP_WITHIN_S, Keeper
from .spec import Spec, ship

PROCESSES_MAX: Final = 1_000
Report: TypeAlias = Callable[[dict[str, Any]], None]
_OURS: Final = frozenset(
    {
        "auto_commit_interval_ms", "bootstrap_servers", "consumer_timeout_ms", "enable_auto_commit",
        "group_id", "group_instance_id", "key_deserializer", "offset_store", "on_error", "value_deserializer",
    }
)  # fmt: skip
"""Options of a consumer that the pool sets."""


class Pool:
    """Runs `handler` in `processes` fresh processes, each a member of the group `group_id`.

        def handler(record):
            return record.key, record.value.upper()

        with Pool(handler, "orders", "upper", processes=4, output_topic="loud") as pool:
            pool.wait()

    **Handlers** get a record, or with `batches=True` a `ColumnBatch`. They are sent to the processes with
    cloudpickle: closures, lambdas and functions of a script or notebook work; what they refer to is copied.
    What a handler returns goes to `output_topic`, if there is one: a value, a (key, value) tuple, or a list
    of these; None sends nothing; bytes, or what `output_serializer` takes.

    **At least once.** An offset is committed after its record was handled and its results are stored: at
    most every `commit_interval_ms`, when partitions move, and at the end. With `local_state`, a folder, the
    handler gets a second argument, a `LocalTransaction`: its changes are stored together with the offset,
    exactly once (`Consumer.local_transaction`). Records of one poll share a transaction (`max_poll_records`).

    **Failures.** A handler that raises is tried `retries` times more, with pauses that double from
    `retry_backoff_ms`. After that the record, or batch, is written to `dead_letter_topic` with its own bytes
    and the reason in headers (`tailrace.error`, ...), and passed; without such a topic the pool stops with
    WorkerFailedError. The same holds for what does not deserialize, at once, and for a record with which
    3 workers in a row have died. A worker that dies is started again, and its partitions go on.

    **The end.** `stop`, leaving `with`, SIGTERM or Ctrl-C in `run`: handlers finish what they have in hand,
    what is done is committed. With `stop_at_end` the pool ends by itself when all records are done that
    the topics held when it was started. One that is dropped without `stop` ends, too, with a ResourceWarning.
    A fork of the process cannot use it: ClosedError.

    Other options are the consumers' (`session_timeout_ms`, `max_poll_records`, ...), but for those that the
    pool sets; `auto_offset_reset` is "earliest" here. Raises InvalidArgumentError, also for a handler that
    cannot be pickled, or that cannot be called like that.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        topics: str | Iterable[str],
        group_id: str,
        *,
        processes: int = 1,
        bootstrap_servers: str | Iterable[str] = "127.0.0.1:7070",
        batches: bool = False,
        retries: int = 3,
        retry_backoff_ms: int = 100,
        commit_interval_ms: int = 1_000,
        dead_letter_topic: str | None = None,
        output_topic: str | None = None,
        output_serializer: str | Serializer | None = None,
        key_deserializer: str | Deserializer | None = None,
        value_deserializer: str | Deserializer | None = None,
        local_state: str | Path | None = None,
        stop_at_end: bool = False,
        **consumer_options: Any,
    ) -> None:
        check_handler(handler, with_state=local_state is not None, batches=batches)
        self._processes = check_int("processes", processes, 1, PROCESSES_MAX)
        check_int("retries", retries, 0, INT32_MAX)
        check_int("retry_backoff_ms", retry_backoff_ms, 0, INT32_MAX)
        check_timeout("commit_interval_ms", commit_interval_ms)
        serializer_of("output_serializer", output_serializer)
        deserializer_of("key_deserializer", key_deserializer)
        deserializer_of("value_deserializer", value_deserializer)
        wanted = topics_of(topics)
        if not wanted:
            raise InvalidArgumentError("a pool needs a topic")
        if dead_letter_topic in wanted:
            raise InvalidArgumentError(
                f"dead_letter_topic {dead_letter_topic!r} is one of the topics: letters would come back"
            )
        servers = bootstrap_servers if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        self._spec = Spec(
            handler=handler,
            topics=tuple(wanted),
            group_id=group_id,
            batches=batches,
            retries=retries,
            retry_backoff_ms=retry_backoff_ms,
            commit_interval_ms=commit_interval_ms,
            dead_letter_topic=dead_letter_topic,
            output_topic=output_topic,
            output_serializer=output_serializer,
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
            local_state=local_state is not None,
            consumer=_consumer_options(group_id, servers, local_state, consumer_options),
            producer={"bootstrap_servers": servers},
        )
        self._servers = servers
        self._stop_at_end = stop_at_end
        self.stdout: int | None = None
        """Where what handlers print goes, a file descriptor. None: where it goes in this process."""
        self._keeper: Keeper | None = None
        self._spec_fd = ship(self._spec)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except TailraceError as failure:
            if error is None:
                raise
            error.add_note(f"and the pool: {failure}")

    def __del__(self) -> None:
        """Forgotten: the workers drain and end by themselves, since the keeper does not know its pool."""
        if getattr(self, "_spec_fd", -1) < 0:
            return
        os.close(self._spec_fd)
        keeper = self._keeper
        if keeper is not None and keeper.is_ours() and not keeper.over.is_set():
            keeper.stop(STOP_WITHIN_S)
            group = self._spec.group_id
            warnings.warn(
                f"the pool of {group!r} was not stopped", ResourceWarning, stacklevel=2, source=self
            )

    # -------------------------------------------------------------------- life

    def start(self) -> None:
        """Start the workers; returns at once. Raises UnknownTopicError, ConnectionFailedError."""
        if self._keeper is not None:
            raise ClosedError("a pool runs once: make another one")
        with self._admin() as admin:
            topics = self._topics(admin)
            ends = _ends(admin, topics) if self._stop_at_end else None
        self._keeper = Keeper(self._spec_fd, self._processes, ends, self.stdout)
        self._keeper.start()

    def check_topics(self) -> None:
        """Are all topics there, also those of results and dead letters? As `start` looks, and raises."""
        with self._admin() as admin:
            self._topics(admin)

    @property
    def started(self) -> bool:
        """Was it started? It may have ended since."""
        return self._keeper is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Until the pool has ended; False if `timeout` seconds were over first.

        Raises WorkerFailedError with the record and the cause if that has ended it.
        """
        keeper = self._kept()
        over = wait_in_steps(keeper.over.wait, seconds_of(timeout))
        if over and keeper.failure is not None:
            raise keeper.failure.with_traceback(None)
        return over

    def stop(self, timeout: float | None = STOP_WITHIN_S) -> None:
        """Have handlers finish what they have in hand, commit, and end. May be repeated.

        Who is not done after `timeout` seconds (None: for ever) is killed: its last records are handled
        again. Does nothing in a fork of the pool's process. Raises like `wait`.
        """
        if self._keeper is not None and not self._keeper.is_ours():
            return
        keeper = self._kept()
        within_s = seconds_of(timeout)
        if self._spec_fd >= 0:
            if not keeper.over.is_set():
                keeper.stop(FOR_EVER_S if within_s is None else within_s)
            keeper.join()
            os.close(self._spec_fd)
            self._spec_fd = -1
        self.wait()

    def run(self, report: Report | None = None, every_s: float = 1.0) -> None:
        """Start, and stop when it has ended by itself, or at SIGTERM or Ctrl-C (the second one kills).

        `report` gets `metrics()` every so often. Only in the main thread, else InvalidArgumentError. Raises
        like `wait`; also WorkerFailedError if workers had to be killed.
        """
        if threading.current_thread() is not threading.main_thread():
            raise InvalidArgumentError(
                "run() waits for signals, which only the main thread gets: use `with`, or start() and wait()"
            )
        signals = SignalPipe(stop_signals())
        try:
            self.start()
            keeper = self._kept()
            self._attend(keeper, signals, report, every_s)
        finally:
            try:
                if self._keeper is not None:
                    self.stop()
            finally:
                signals.close()
        if keeper.killed:
            raise WorkerFailedError(
                "workers did not end in time and were killed: what they have not committed is handled again"
            )

    def _attend(self, keeper: Keeper, signals: SignalPipe, report: Report | None, every_s: float) -> None:
        within_s = STOP_WITHIN_S
        while not self._kept().over.is_set():  # raises if `report` has forked, and this is the fork
            readable, _, _ = select.select([signals.reader, keeper.over_reader], [], [], every_s)
            if signals.reader in readable:
                signals.read()
                keeper.stop(within_s)
                within_s = 0.0
            if report is not None and not keeper.over.is_set():
                report(keeper.metrics())

    def __repr__(self) -> str:
        spec, keeper = self._spec, self._keeper
        if keeper is None:
            state = "not started"
        elif not keeper.is_ours():
            state = f"belongs to process {keeper.owner}"
        elif keeper.over.is_set():
            state = "ended" if keeper.failure is None else f"failed: {keeper.failure}"
        else:
            done = keeper.metrics()
            running = sum(worker["state"] == "running" for worker in done["workers"])
            state = f"{running} running, {plural(done['records'], 'record')} done, lag {done['lag']:,}"
        name = getattr(spec.handler, "__qualname__", repr(spec.handler))
        topics, workers = ", ".join(spec.topics), plural(self._processes, "worker")
        return f"<Pool {spec.group_id!r} of {workers}: {name} on {topics}: {state}>"

    def metrics(self) -> dict[str, Any]:
        """Records, errors, retries, dead letters, rate, lag and restarts, in all and for each of `workers`.

        Records count when they are done, as a result or as a dead letter; errors are attempts that failed.
        Workers tell twice a second: what one that died had done since is missing, and counts again if it was
        not committed.
        """
        return self._kept().metrics()

    def _topics(self, admin: Admin) -> list[TopicDescription]:
        """Those that are read. Raises UnknownTopicError, for the others too."""
        read, named = self._spec.topics, (self._spec.dead_letter_topic, self._spec.output_topic)
        return admin.describe_topics([*read, *filter(None, named)])[: len(read)]

    def _admin(self) -> Admin:
        timeout_ms: int = self._spec.consumer.get("request_timeout_ms", 30_000)
        return Admin(self._servers, request_timeout_ms=timeout_ms)

    def _kept(self) -> Keeper:
        if self._keeper is None:
            raise ClosedError("the pool was not started: use `with`, start() or run()")
        if not self._keeper.is_ours():
            raise ClosedError(
                f"the pool was started before fork() and belongs to process {self._keeper.owner}; make "
                "another one here"
            )
        return self._keeper


OPTIONS: Final = (*keyword_options(Pool.__init__), *(set(CONSUMER_OPTIONS) - _OURS))


def _consumer_options(
    group_id: str, servers: str | list[str], local_state: str | Path | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What workers make their consumers with. Raises InvalidArgumentError."""
    for name in given.keys() & _OURS:
        raise InvalidArgumentError(f"{name} is set by the pool: leave it out")
    reject_unknown("Pool", {name: given[name] for name in given if name not in CONSUMER_OPTIONS}, OPTIONS)
    options: dict[str, Any] = {
        "auto_offset_reset": "earliest",
        "bootstrap_servers": servers,
        "offset_store": local_state,
    }
    options.update(given)
    ConsumerConfig(group_id=group_id, **options)
    return options


def _ends(admin: Admin, topics: Iterable[TopicDescription]) -> dict[tuple[str, int], int]:
    """Where each partition ends now, of those that hold a record."""
    counts = {topic.name: len(topic.partitions) for topic in topics}
    places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    first = admin.list_offsets(dict.fromkeys(places, Admin.EARLIEST))
    last = admin.list_offsets(dict.fromkeys(places, Admin.LATEST))
    found = ((place, first[place], last[place]) for place in places)
    return {
        (place.topic, place.partition): end.offset
        for place, start, end in found
        if start is not None and end is not None and end.offset > start.offset
    }
