"""The coordinator process: its sockets, its clock, and the one loop that everything happens in."""

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from tailrace.protocol.cluster import Listener
from tailrace.protocol.limits import COORDINATOR_BURST_BYTES_MAX, COORDINATOR_BURST_MAX, OPENINGS_KEPT_MAX
from tailrace.transport.context import new_context
from tailrace.transport.endpoint import choose
from tailrace.transport.poller import Poller
from tailrace.transport.probe import Names, Probe
from tailrace.transport.publisher import Publisher
from tailrace.transport.server import Incoming, Server
from tailrace.transport.wakeup import Wakeup

from .config import CoordinatorConfig
from .handlers.init_producer import SKIPPED_BITS, skip_ids
from .machine import Machine, Settings
from .private_state import ControllerEpochRaised, StoreOpened
from .probing import Probing
from .service import Service
from .store.group_store import LmdbGroupStore
from .store.interface import GroupStore, Store
from .store.lmdb_store import LmdbStore

GROUPS_FOLDER: Final = "groups"
WELCOME_S: Final = 0.01
"""How soon a new subscriber gets a beat, which tells it whether it has missed something; one for many."""
LINGER_MS: Final = 200
"""How long the last replies may take to leave when the process stops."""

logger: Final = logging.getLogger(__name__)


class Coordinator:
    """One coordinator. `run` blocks in one thread; `stop` may be called from anywhere."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._wakeup = Wakeup()
        self._stopping = False

    def stop(self) -> None:
        """End `run` soon. For any thread and for signal handlers; also before `run`."""
        self._stopping = True
        self._wakeup.set()

    def run(self, on_ready: Callable[[Listener], None], parent_fd: int | None = None) -> None:
        """Serve until `stop`, or until `parent_fd` is closed on its other end.

        `on_ready` is called once the state is loaded and the sockets are bound, with the real
        endpoints. Raises DataFolderError, ConnectionFailedError when it cannot start, and
        StorageFaultError when the store fails.
        """
        config = self._config
        with ExitStack() as stack:
            stack.callback(self._wakeup.close)
            store = LmdbStore(config.data_dir)
            stack.callback(store.close)
            group_store = LmdbGroupStore(config.data_dir / GROUPS_FOLDER)
            stack.callback(group_store.close)
            context = new_context()
            stack.callback(context.term)
            server = Server(context, tcp=config.tcp, ipc=config.ipc)
            stack.callback(server.close, LINGER_MS)
            publisher = Publisher(context, tcp=config.publisher_tcp, ipc=config.publisher_ipc)
            stack.callback(publisher.close)
            machine = self._take_over(store, group_store, publisher.listener)
            service = Service(machine, store, group_store, publisher.send, server.send)
            names = Names()
            probing = Probing(lambda listener: Probe(choose(listener), names))
            stack.callback(probing.close)
            poller = Poller()
            stack.callback(poller.close)
            on_ready(server.listener)
            self._loop(
                server, publisher, service, machine, poller=poller, probing=probing, parent_fd=parent_fd
            )
            service.stop()

    def _take_over(self, store: Store, group_store: GroupStore, publisher: Listener) -> Machine:
        """Load the state, and store that another coordinator has it, before anybody is served."""
        state = store.load()
        raised = ControllerEpochRaised(state.cluster.controller_epoch + 1)
        skipped = skip_ids(state, secrets.randbits(SKIPPED_BITS))
        opened = StoreOpened((*state.openings, secrets.randbits(63))[-OPENINGS_KEPT_MAX:])
        for change in (raised, skipped, opened):
            state.apply_private(change)
        store.commit([], [raised, skipped, opened])
        logger.info(
            "controller epoch %d, version %d, %d nodes, %d topics",
            raised.controller_epoch,
            state.cluster.version,
            len(state.cluster.nodes),
            len(state.cluster.topics),
        )
        settings = Settings(publisher, self._config.session_timeout_ms, self._config.offsets_retention_ms)
        return Machine(state, group_store.load(), settings, time.monotonic())

    def _loop(
        self,
        server: Server,
        publisher: Publisher,
        service: Service,
        machine: Machine,
        *,
        poller: Poller,
        probing: Probing,
        parent_fd: int | None,
    ) -> None:
        poller.add(server)
        poller.add(publisher)
        poller.add(self._wakeup)
        if parent_fd is not None:
            poller.add(parent_fd)
        beat_s = self._config.beat_interval_ms / 1000
        next_beat = time.monotonic()
        while not self._stopping:
            next_tick, now = machine.next_tick(), time.monotonic()
            times = (next_beat, next_tick, probing.next_look(now))
            wake = min(due for due in times if due is not None)
            ready = poller.poll(max(0.0, wake - now))
            if self._wakeup in ready:
                self._wakeup.clear()
            if parent_fd is not None and parent_fd in ready and not os.read(parent_fd, 4096):
                logger.info("the parent process is gone")
                return
            # Requests come before time-outs: a heartbeat that waits in the socket counts.
            burst = _receive_burst(server)
            gone = server.take_gone()
            publisher.admit(server.connections)  # to each there is one of its own
            if burst:
                service.serve(burst, time.monotonic(), _wall_ms(), gone)
            # After their last requests, so that a member that has left is not taken for one that was lost.
            if gone:
                service.gone(gone, time.monotonic(), _wall_ms())
            now = time.monotonic()
            if publisher in ready and publisher.joined():
                next_beat = min(next_beat, now + WELCOME_S)
            machine.refused(probing.refused(machine.missing(), now))
            if next_tick is not None and now >= next_tick:
                service.tick(now, _wall_ms())
            if now >= next_beat:
                service.beat()
                next_beat = now + beat_s


def _wall_ms() -> int:
    """Milliseconds since 1970: for what is stored, never for how long something takes."""
    return time.time_ns() // 1_000_000


def _receive_burst(server: Server) -> list[Incoming]:
    """What has arrived, up to a bound, so that one transaction and its answers stay short."""
    burst: list[Incoming] = []
    room = COORDINATOR_BURST_BYTES_MAX
    while room > 0 and len(burst) < COORDINATOR_BURST_MAX and (incoming := server.receive()) is not None:
        burst.append(incoming)
        room -= len(incoming.header) + sum(map(len, incoming.frames))
    return burst
