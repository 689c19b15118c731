"""A node of production on simulated sockets, disk and time: its loop, its writer and its reader in steps."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import lmdb

from tailrace.coordinator.state import State
from tailrace.node.chores import Chores
from tailrace.node.config import NodeConfig
from tailrace.node.loop import Loop
from tailrace.node.mailbox import Mailbox
from tailrace.node.reader import Reader
from tailrace.node.storage import schema
from tailrace.node.storage.environment import Storage
from tailrace.node.writer import Writer
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import MIB

from .schedule import Process, Schedule
from .sockets import Network, SimConnection, SimPoller, SimServer, SimSubscriber

COORDINATOR = "sim://coordinator"
RETENTION_CHECK_S = 0.3
META_BYTES = 2 * 4096
"""LMDB's two meta pages: the older of them is the state before the last commit."""


class Disk:
    """The node's LMDB environment, which may fail or be full, and whose last commit may be undone."""

    def __init__(self, environment: Any, data: Path) -> None:
        self._environment = environment
        self._descriptor = os.open(data, os.O_RDONLY)
        self.broken = self.full = False
        self.before = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, *args: Any, **options: Any) -> Any:
        if options.get("write"):
            if self.broken:
                raise lmdb.Error("input/output error")
            if self.full:
                raise lmdb.MapFullError("no room")
            self.before = os.pread(self._descriptor, META_BYTES, 0)
        return self._environment.begin(*args, **options)

    def close(self) -> None:
        os.close(self._descriptor)
        self._environment.close()


class _Wakeup:
    def __init__(self, wake: Callable[[], None]) -> None:
        self.set = wake


class NodeProcess(Process):
    """`stepped` is called after everything that it did. `slow`: the chance of a write to take long."""

    def __init__(
        self,
        node_id: int,
        schedule: Schedule,
        network: Network,
        folder: Path,
        *,
        flush: str,
        slow: float,
        stepped: Callable[["NodeProcess"], None],
        keeps_copies: bool,
    ) -> None:
        super().__init__(f"node {node_id}", schedule)
        self.node_id = node_id
        self.flush = flush
        self.stepped = stepped
        self.has_lost = False
        """Some of what was on its disk is gone, and the coordinator has not heard of it since."""
        self.wipes = 0
        """How often it lost some or all of its disk."""
        self._keeps_copies = keeps_copies
        self._slow = slow
        self._network = network
        self._folder = folder
        self.ends: dict[tuple[bytes, int], int] = {}
        """What was on disk of each log when it stopped."""

    def start(self) -> None:
        schedule, network = self.schedule, self._network
        config = NodeConfig(
            node_id=self.node_id, data_dir=self._folder, coordinator=(COORDINATOR,), flush=self.flush
        )
        data = self._folder / "data.mdb"
        if self._keeps_copies and data.exists():
            shutil.copyfile(data, self._copy)
        self.storage = storage = Storage.open(
            self._folder, quota_bytes=16 * MIB, reserve_bytes=0, flush=self.flush
        )
        self.disk = Disk(storage._tables.environment, data)
        storage._tables.environment = self.disk
        self._mailbox = mailbox = Mailbox(_Wakeup(self.wake))
        mailbox.asleep = True
        self._writer = Writer(
            storage,
            mailbox,
            Chores(retention_check_s=RETENTION_CHECK_S),
            monotonic=lambda: schedule.now,
            wall_ms=schedule.wall_ms,
        )
        self._reader = Reader(mailbox)
        self._poller = SimPoller()
        self._server = SimServer(network, self, f"sim://{self.name}")
        self.loop = Loop(
            config,
            connect=partial(SimConnection, network, self),
            subscribe=partial(SimSubscriber, network, self),
            poller=self._poller,
            server=self._server,
            storage=storage,
            writer=self._writer,
            reader=self._reader,
            mailbox=mailbox,
            wall_ms=schedule.wall_ms,
            new_random=lambda: Random(schedule.random.getrandbits(32)),
        )
        self._poller.add(self._server)
        self._busy: set[object] = set()
        schedule.note(f"{self.name} starts{'' if storage.clean else ' after an unclean stop'}")
        self.begin()

    def step(self) -> None:
        now = self.schedule.now
        try:
            self.loop.step(self._poller.ready(), now)
        except TailraceError as error:
            self.schedule.note(f"{self.name} gives up: {error}")
            self.crash()
            return
        if now >= self.loop._end_at:
            self.schedule.note(f"{self.name} ends: {self.loop._failure}")
            self.crash()
            return
        self._work(self._writer)
        self._work(self._reader)
        self.stepped(self)
        self.wake(self.schedule.now if self._poller.ready() else self.loop.next_step())

    def _work(self, thread: Writer | Reader) -> None:
        """The writer or the reader goes on, in its own time."""
        if thread.waits and thread not in self._busy:  # one that has ended is busy for ever
            self._busy.add(thread)
            takes = self.schedule.between(1e-4, 2e-3)
            if self.schedule.happens(self._slow):
                takes += self.schedule.between(0, 0.3)
            self.schedule.after(takes, partial(self._thread_step, thread, self.run_number))

    def _thread_step(self, thread: Writer | Reader, run: int) -> None:
        if run != self.run_number:
            return
        if self.paused:
            self.schedule.after(0.01, partial(self._thread_step, thread, run))
            return
        if thread.step():
            self._busy.discard(thread)
            self._work(thread)
        self.stepped(self)

    @property
    def _copy(self) -> Path:
        """Its data as they were before it was started last."""
        return self._folder.with_name(f"{self.node_id}.copy")

    def crash(self, *, power: bool = False, wipe: bool = False, restore: bool = False) -> None:
        """Killed; or its machine loses its power, or its disk, or gets an older copy of that."""
        if not self.alive:
            return
        restore = restore and self._copy.exists()
        lost = " and its disk" if wipe else " and gets an older disk" if restore else ""
        self.schedule.note(f"{self.name} {'loses its power' if power else 'stops'}{lost}")
        self.end()
        self.ends = {key: log.log_end_offset for key, log in self.storage.logs.items()}
        self.loop.close()
        self._server.close()
        before = self.disk.before
        self.storage.close(clean=False)
        if power and self.flush == "relaxed" and before:
            with (self._folder / "data.mdb").open("r+b") as file:
                file.write(before)
            self.has_lost = True
            self.ends.clear()
        if wipe:
            shutil.rmtree(self._folder)
        elif restore:
            (self._folder / "lock.mdb").unlink()
            self._copy.replace(self._folder / "data.mdb")
        if wipe or restore:
            self.wipes += 1
            self.has_lost = True
            self.ends.clear()

    def settled(self, state: State) -> bool:
        """Does it follow this state of the coordinator, with nothing left for its writer to do?"""
        follows = self.alive and self.loop._membership.cluster.version == state.cluster.version
        return follows and not self._writer.waits and self._writer not in self._busy

    def spoil(self, key: tuple[bytes, int]) -> None:
        """Behind the storage's back there is something beyond the end of a log: nothing can be appended."""
        log = self.storage.logs[key]
        with self.disk.begin(write=True) as transaction:
            transaction.put(schema.offset_key(log.log_end_offset + 5), b"?", db=log.database)

    def end_of(self, key: tuple[bytes, int]) -> int | None:
        """What is on its disk of a log; None: nobody knows."""
        if not self.alive:
            return self.ends.get(key)
        log = self.storage.logs.get(key)
        return None if log is None else log.log_end_offset
