"""Where a client finds the coordinator first."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tailrace.protocol.errors import ConnectionFailedError
from tailrace.protocol.text import span
from tailrace.transport.endpoint import diagnose, parse_bootstrap


class Bootstrap:
    """The addresses that the user gave, tried in turn.

    Raises InvalidArgumentError for an address that does not parse.
    """

    def __init__(self, servers: str | Sequence[str]) -> None:
        self.endpoints = parse_bootstrap(servers)
        self._next = 0

    @property
    def current(self) -> str:
        """The endpoint to use."""
        return self.endpoints[self._next]

    def rotate(self) -> None:
        """The current endpoint did not answer: go on to the next one."""
        self._next = (self._next + 1) % len(self.endpoints)

    def explain(self, waited_s: float) -> ConnectionFailedError:
        """Why none of the addresses could be used for `waited_s` seconds.

        Tries all at once with plain sockets, which may take a second: for the caller's thread, not
        for the I/O thread.
        """
        with ThreadPoolExecutor(len(self.endpoints)) as pool:
            causes = "; ".join(pool.map(_explain, self.endpoints))
        return ConnectionFailedError(f"{causes} (waited {span(waited_s)}): is `tailrace up` running?")

    def causes(self) -> str:
        """Why no address can be used now: tried one after the other, which may take a second each.

        Without threads, which cannot be started any more when the interpreter ends.
        """
        return "; ".join(map(_explain, self.endpoints))

    def __str__(self) -> str:
        return ", ".join(address(endpoint) for endpoint in self.endpoints)


def address(endpoint: str) -> str:
    """An endpoint as users write it: `host:port`."""
    return endpoint.removeprefix("tcp://")


def _explain(endpoint: str) -> str:
    return f"{address(endpoint)}: {diagnose(endpoint)}"
