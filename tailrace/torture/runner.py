"""One run: a cluster, its clients, the faults, the end of it all, and the check of the history."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from tailrace.bench.lines import Stop, Until
from tailrace.client.admin import Admin
from tailrace.processes.launch import Role
from tailrace.processes.signal_pipe import SignalPipe, stop_signals
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import TopicPartition

from .checker import Checker
from .clients import Client, wait_for
from .disks import Disk
from .faults import Faults
from .history import Crashed, Writer, read_history
from .network import Network
from .observer import Observer
from .plan import plan
from .processes import Processes
from .replicas import replica_events
from .spec import Results, Spec
from .tasks import ClientTask
from .timeline import TimelineMaker

TOPIC: Final = "torture"
REPLICAS_MAX: Final = 3
INSYNC: Final = 2
STEP_S: Final = 0.02
TELL_EVERY_S: Final = 0.25
CLUSTER: Final = "the cluster"

Report = Callable[[float, str], None]
"""Told how far it is: seconds since the start, and what happens."""


class Runner:
    """Runs one `spec` on a cluster with the settings of a YAML file, in two empty folders."""

    def __init__(
        self,
        spec: Spec,
        settings: Mapping[str, Any],
        *,
        folder: Path,
        history: Path,
        network: Network | None,
        report: Report,
    ) -> None:
        self._spec = spec
        self._network = network
        self._settings = dict(settings)
        self._folder = folder
        self._folder_of_history = history
        self._report = report
        self._told_at = 0.0
        self._ends_s = spec.duration_s
        self._interrupted = False
        self._may_end_early = False
        """Does a signal end the faults only? Then what happened is checked; else it ends everything."""

    def run(self) -> Results:
        """All of it. Raises TailraceError when the cluster or the clients do not even start."""
        logs = self._folder_of_history / "logs"
        logs.mkdir()
        start_ns = time.monotonic_ns()
        with ExitStack() as stack:
            self._history = stack.enter_context(Writer(self._folder_of_history / "cluster.jsonl", start_ns))
            self._signals = SignalPipe(stop_signals())
            stack.callback(self._signals.close)
            self._processes, disks = self._prepare(logs)
            stack.callback(self._processes.close)
            self._processes.start_all()
            admin = stack.enter_context(Admin(self._processes.bootstrap_servers))
            topic_id = self._make_topic(admin)
            clients = self._start_clients(stack, logs, start_ns, local=self._network is None)
            observations = stack.enter_context(Writer(self._folder_of_history / "observer.jsonl", start_ns))
            servers, partitions = self._processes.bootstrap_servers, self._spec.partitions
            with Observer(servers, TOPIC, partitions, observations) as observer:
                self._observer = observer
                self._faults = Faults(
                    plan(
                        self._spec.seed,
                        self._spec.kinds,
                        duration_s=self._spec.duration_s,
                        every_s=self._spec.every_s,
                    ),
                    self._processes,
                    observer.leaders,
                    self._history.write,
                    disks=disks,
                    network=self._network,
                )
                self._torture(clients)
                self._finish(admin, clients)
            self._stop(topic_id)
        return self._check()

    # ------------------------------------------------------------- beginning

    def _prepare(self, logs: Path) -> tuple[Processes, dict[Role, Disk]]:
        if self._network is not None:
            self._settings = self._network.settings(self._settings)
        processes = Processes(self._settings, self._folder, logs, self._network)
        disks = {}
        if "disk-full" in self._spec.kinds:
            disks = {role: Disk(processes.folder_of(role)) for role in processes.roles[1:]}
        return processes, disks

    def _make_topic(self, admin: Admin) -> bytes:
        nodes = len(self._settings["nodes"])
        admin.ready(nodes=nodes)
        replicas = min(REPLICAS_MAX, nodes)
        described = admin.create_topic(
            TOPIC,
            partitions=self._spec.partitions,
            replication_factor=replicas,
            config={"min_insync_replicas": min(INSYNC, replicas), "retention_ms": -1, "retention_bytes": -1},
        )
        return bytes.fromhex(described.topic_id.replace("-", ""))

    def _start_clients(self, stack: ExitStack, logs: Path, start_ns: int, *, local: bool) -> list[Client]:
        spec = self._spec
        run = int.from_bytes(os.urandom(4))
        kinds: list[tuple[Literal["producer", "consumer"], int]] = [
            *(("producer", number) for number in range(spec.producers)),
            *(("consumer", number) for number in range(spec.consumers)),
        ]
        clients = []
        for role, number in kinds:
            task = ClientTask(
                role=role,
                number=number,
                bootstrap_servers=self._processes.bootstrap_servers,
                topic=TOPIC,
                partitions=spec.partitions,
                run=run,
                start_ns=start_ns,
                file=str(self._folder_of_history / f"{role}-{number}.jsonl"),
                records_per_s=spec.records_per_s / spec.producers,
                record_bytes=spec.record_bytes,
                keys=spec.keys,
                local=local,
                request_timeout_ms=spec.request_timeout_ms,
            )
            clients.append(Client(task, logs))
            stack.callback(clients[-1].close)
        return clients

    # ---------------------------------------------------------------- faults

    def _torture(self, clients: list[Client]) -> None:
        """The planned time under faults, and until the last of them is over."""
        if not self._wait_until(lambda: self._flows(clients), "waiting for the first records"):
            raise TailraceError(f"nothing is read within {self._spec.whole_within_s:g} s")
        begin = self._history.now()
        self._faults.start(begin)
        while self._history.now() - begin < self._spec.duration_s or not self._faults.done:
            self._may_end_early = not self._interrupted
            self._step()
            if self._interrupted:
                self._faults.drop_coming()
                if self._faults.done:
                    break
            if any(client.failure() for client in clients):
                break
        self._may_end_early = False
        self._ends_s = self._history.now()

    def _flows(self, clients: list[Client]) -> bool:
        """Has every client done its first work?"""
        for client in clients:
            failure = client.failure()
            if failure is not None:
                raise TailraceError(f"{client.task.name} did not start: {failure}")
        files = [Path(client.task.file) for client in clients]
        written = all(file.exists() and file.stat().st_size for file in files)
        return written and self._observer.committed > 0

    def _step(self, what: str = "") -> None:
        """Let a little time pass, and do what is due in it."""
        time.sleep(STEP_S)
        if self._signals.read_now():
            if not self._may_end_early:
                raise KeyboardInterrupt
            self._interrupted = True
        now = self._history.now()
        self._faults.step(now)
        if now >= self._told_at:
            self._told_at = now + TELL_EVERY_S
            on = what or ", ".join(self._faults.on) or "no fault"
            self._report(now, f"{self._observer.committed:,} records committed; {on}")

    # --------------------------------------------------------------- the end

    def _finish(self, admin: Admin, clients: list[Client]) -> None:
        """The cluster becomes whole, everything is answered and read, and every replica has it."""
        if not self._wait_until(lambda: _is_whole(admin), "waiting until the cluster is whole"):
            self._note_failure(CLUSTER, "it did not become whole again")
        producers = [client for client in clients if client.task.role == "producer"]
        consumers = [client for client in clients if client.task.role == "consumer"]
        for producer in producers:
            producer.tell(Stop())
        self._await_clients(producers, "waiting for the producers")
        try:
            ends = self._ends(admin)
        except TailraceError as error:
            self._note_failure(CLUSTER, f"it does not tell where its logs end: {error}")
            return
        for consumer in consumers:
            consumer.tell(Until(ends))
        self._await_clients(consumers, "waiting for the consumers")
        if not self._wait_until(lambda: _all_equal(admin), "waiting for the replicas"):
            self._note_failure(CLUSTER, "its replicas did not catch up")

    def _await_clients(self, clients: list[Client], what: str) -> None:
        self._wait_until(lambda: all(client.over for client in clients), what)
        for name, reason in wait_for(clients, 0):
            self._note_failure(name, reason)

    def _wait_until(self, condition: Callable[[], bool], what: str) -> bool:
        deadline = time.monotonic() + self._spec.whole_within_s
        while time.monotonic() < deadline:
            self._step(what)
            try:
                if condition():
                    return True
            except TailraceError:
                continue
        return False

    def _ends(self, admin: Admin) -> dict[int, int]:
        places = {TopicPartition(TOPIC, number): Admin.LATEST for number in range(self._spec.partitions)}
        found = admin.list_offsets(places)
        return {place.partition: at.offset for place, at in found.items() if at is not None}

    def _stop(self, topic_id: bytes) -> None:
        """Stop the cluster, and take what its replicas hold into the history."""
        for role, reason in self._processes.stop():
            self._note_failure(role.name, reason)
        for role in self._processes.roles[1:]:
            assert role.node_id is not None
            folder = self._processes.folder_of(role)
            try:
                for event in replica_events(folder, role.node_id, topic_id, self._spec.record_bytes):
                    self._history.write(event)
            except TailraceError as error:
                self._note_failure(role.name, str(error))

    def _note_failure(self, process: str, reason: str) -> None:
        self._history.write(Crashed(at_s=self._history.now(), process=process, reason=reason))

    def _check(self) -> Results:
        self._report(self._ends_s, "checking the history")
        checker, timeline = Checker(), TimelineMaker()
        for event in read_history(self._folder_of_history):
            checker.add(event)
            timeline.add(event)
        results = Results(
            spec=self._spec,
            nodes=len(self._settings["nodes"]),
            verdict=checker.verdict(),
            timeline=timeline.timeline(self._ends_s),
            history=str(self._folder_of_history),
            interrupted=self._interrupted,
        )
        file = self._folder_of_history / "results.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        return results


def _is_whole(admin: Admin) -> bool:
    """Is every node alive, and every replica in sync?"""
    if not all(node.alive for node in admin.describe_cluster(timeout_ms=2_000).nodes):
        return False
    partitions = admin.describe_topic(TOPIC, timeout_ms=2_000).partitions
    return all(each.leader is not None and set(each.isr) == set(each.replicas) for each in partitions)


def _all_equal(admin: Admin) -> bool:
    """Has every replica everything, and is all of that committed?"""
    ends: dict[int, set[int]] = {}
    committed: dict[int, int] = {}
    for node in admin.describe_logs(timeout_ms=5_000).values():
        for log in node.logs:
            ends.setdefault(log.partition, set()).add(log.log_end_offset)
            committed[log.partition] = max(log.high_watermark, committed.get(log.partition, 0))
    return all(each == {committed[partition]} for partition, each in ends.items())
