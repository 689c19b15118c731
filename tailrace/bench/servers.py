"""What the cluster's processes use while clients are measured, as far as they can be found."""

from collections.abc import Mapping

import msgspec

from tailrace.client.admin import Admin

from .usage import Usage, listening_at, usage_of


class ServerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of a process in the measured time, and the most anonymous memory, in bytes.

    None for what is not known, such as of a process on another machine.
    """

    name: str
    pid: int | None
    cpu_s: float | None
    rss_anon_max: int | None


class Servers:
    """Watches processes, by name. A pid is None where the process was not found."""

    def __init__(self, pids: Mapping[str, int | None]) -> None:
        self._pids = pids
        self._cpu_s: dict[str, float] = {}
        """At the beginning, of those that were found."""
        self._rss: dict[str, int] = {}
        self._used: list[ServerUsage] | None = None
        self.gone: list[str] = []
        """Which have ended, at the last look."""

    def begin(self) -> None:
        """What is used from now on counts."""
        for name, pid in self._pids.items():
            usage = None if pid is None else usage_of(pid)
            if usage is not None:
                self._cpu_s[name] = usage.cpu_s
                self._note(name, usage)

    def look(self) -> None:
        """Note how much memory they take now."""
        gone = []
        for name in self._cpu_s:
            pid = self._pids[name]
            usage = None if pid is None else usage_of(pid)
            if usage is None:
                gone.append(name)
            else:
                self._note(name, usage)
        self.gone = gone

    def end(self) -> None:
        """What is used from now on does not count any more. Once it has ended, that is it."""
        if self._used is None:
            self.look()
            self._used = [self._usage(name, pid) for name, pid in self._pids.items()]

    @property
    def used(self) -> list[ServerUsage]:
        """Each of them, between `begin` and `end`."""
        self.end()
        assert self._used is not None
        return self._used

    def _note(self, name: str, usage: Usage) -> None:
        if usage.rss_anon is not None:
            self._rss[name] = max(self._rss.get(name, 0), usage.rss_anon)

    def _usage(self, name: str, pid: int | None) -> ServerUsage:
        now = None if pid is None else usage_of(pid)
        before = self._cpu_s.get(name)
        cpu_s = None if now is None or before is None else round(now.cpu_s - before, 3)
        return ServerUsage(name=name, pid=pid, cpu_s=cpu_s, rss_anon_max=self._rss.get(name))


def find_nodes(admin: Admin) -> dict[str, int | None]:
    """The nodes of a running cluster, and the processes of those that are on this machine."""
    nodes = admin.describe_cluster().nodes
    return {f"node {node.node_id}": listening_at(node.tcp) for node in nodes if node.alive}
