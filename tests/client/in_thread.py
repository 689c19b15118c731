"""What the stand-ins for nodes and coordinators run in."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from tailrace.client.engine import Engine, Task
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller, Source
from tailrace.transport.server import Server
from tailrace.transport.wakeup import Wakeup

ANY_PORT = "tcp://127.0.0.1:0"


def attach(engine: Engine, task: Task) -> None:
    """Let `task` live in the I/O thread from now on, as clients do it when they start."""
    engine.submit(partial(engine._loop.tasks.append, task))


class InThread:
    """A ROUTER in a thread of its own, which the subclass starts."""

    def __init__(self, **options: Any) -> None:
        self._context = new_context()
        self._server = Server(self._context, **options)
        self.listener = self._server.listener
        self._wakeup = Wakeup()
        self._poller = Poller()
        self._actions: list[Callable[[], object]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def do(self, action: Callable[[], object]) -> None:
        """In the thread, soon."""
        self._actions.append(action)
        self._wakeup.set()

    def stop(self) -> None:
        """Gone, as after a kill: connections break, nothing more is answered. May be repeated."""
        self._stopping = True
        self._wakeup.set()
        self._thread.join()

    def _round(self, ready: list[Source]) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """What else is to be closed."""

    def _run(self) -> None:
        self._poller.add(self._wakeup)
        self._poller.add(self._server)
        while not self._stopping:
            ready = self._poller.poll(None)
            self._wakeup.clear()
            while self._actions:
                self._actions.pop(0)()
            self._round(ready)
        self._close()
        self._poller.close()
        self._server.close()
        self._wakeup.close()
        self._context.term()
