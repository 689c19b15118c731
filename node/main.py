"""A node: its parts, and the threads they run in.

network thread   sockets; answers what is in memory or in the page cache; never waits for a disk (loop.py)
writer thread    owns the logs and every write transaction (writer.py); none where nothing is synced
reader thread    reads that may wait for the disk (reader.py)
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import StorageFaultError, TailraceError
from tailrace.transport.connection import Connection
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller
from tailrace.transport.publisher import Subscriber
from tailrace.transport.server import Server
from tailrace.transport.wakeup import Wakeup

from .chores import Chores
from .clock import wall_ms
from .config import NodeConfig
from .loop import Loop
from .mailbox import Mailbox
from .process import set_up_process
from .reader import Reader
from .storage.environment import Storage
from .work import Drain, Letter
from .writer import Writer

LINGER_MS: Final = 500
"""How long the last replies may take to leave when the process stops."""


class Node:
    """One node. `run` blocks in one thread; `stop` may be called from anywhere."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._wakeup = Wakeup()
        self._stop = False

    def stop(self) -> None:
        """End `run` cleanly: what was accepted is committed and answered. Any thread, and signal handlers."""
        self._stop = True
        self._wakeup.set()

    def run(self, on_ready: Callable[[Listener], None], parent_fd: int | None = None) -> None:
        """Serve until `stop`, or until `parent_fd` is closed on its other end.

        `on_ready` is called once the sockets are bound, the node is registered, and the partitions
        it leads are open. Raises DataFolderError, InvalidConfigError, StorageFullError,
        ConnectionFailedError when it cannot start; StorageFaultError within a second of a fault of
        the disk; NodeIdInUseError, UnsupportedVersionError and the like when the coordinator
        refuses the node for good.
        """
        set_up_process()
        try:
            config = self._config
            storage = Storage.open(
                config.data_dir,
                quota_bytes=config.quota_bytes,
                reserve_bytes=config.reserve_bytes,
                flush=config.flush,
                ephemeral=config.ephemeral,
            )
            clean = False
            try:
                self._run_on(storage, on_ready, parent_fd)
                clean = True
            except TailraceError as error:
                clean = not isinstance(error, StorageFaultError)
                raise
            finally:
                storage.close(clean)
        finally:
            self._wakeup.close()

    def _run_on(self, storage: Storage, on_ready: Callable[[Listener], None], parent_fd: int | None) -> None:
        context = new_context()
        try:
            server = Server(context, tcp=self._config.tcp, ipc=self._config.ipc)
            try:
                mailbox: Mailbox[Letter] = Mailbox(self._wakeup)
                chores = Chores(retention_check_s=self._config.retention_check_ms / 1_000)
                writer = Writer(storage, mailbox, chores, wall_ms=wall_ms, inline=self._config.ephemeral)
                reader = Reader(mailbox)
                loop = Loop(
                    self._config,
                    connect=partial(Connection, context),
                    subscribe=partial(Subscriber, context),
                    poller=Poller(),
                    server=server,
                    storage=storage,
                    writer=writer,
                    reader=reader,
                    mailbox=mailbox,
                )
                writer.start()
                reader.start()
                try:
                    loop.run(lambda: self._stop, self._wakeup, on_ready, parent_fd)
                finally:
                    reader.stop()
                    writer.submit(Drain())
                    writer.join()
                    loop.close()
            finally:
                server.close(LINGER_MS)
        finally:
            context.term()
