"""Each process of a cluster on a network of its own, and partitions between them.

All hang on one bridge. A partition lets what a host sends to another vanish: a route into an interface that
leads nowhere. Nobody is told, as when a cable is cut. Clients live beside the bridge, as one more host.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tailrace.processes.launch import COORDINATOR, Role

from .isolation import run
from .plan import PICKS, Target

CLIENTS: Final = "clients"
PORT: Final = 7070
_NET: Final = ipaddress.ip_network("10.77.0.0/16")
_CLIENTS_ADDRESS: Final = str(_NET[1])
_HOSTS_FROM: Final = 10

Cut = tuple[str, str]
"""What the first sends to the second vanishes. Names of processes, or `CLIENTS`."""


class Network:
    """Made in a network namespace of our own, with which it goes."""

    def __init__(self, roles: Sequence[Role]) -> None:
        self._addresses = {role.name: str(_NET[number]) for number, role in enumerate(roles, _HOSTS_FROM)}
        self._addresses[CLIENTS] = _CLIENTS_ADDRESS
        self._cuts: dict[Cut, int] = {}
        """How many partitions that are on cut it."""
        run("mount", "-t", "tmpfs", "tmpfs", "/run")  # where `ip netns` keeps its names
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", f"{_CLIENTS_ADDRESS}/{_NET.prefixlen}", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        _make_void()
        for number, role in enumerate(roles):
            self._make_host(role.name, f"host{number}")

    def settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The cluster's settings, with the processes on their networks."""
        coordinator = {**settings["coordinator"], "listen": f"{self._addresses[COORDINATOR.name]}:{PORT}"}
        coordinator.pop("publisher_listen", None)
        nodes = [
            {**node, "listen": f"{self._addresses[Role(node['id']).name]}:{PORT}"}
            for node in settings["nodes"]
        ]
        return {**settings, "insecure": True, "coordinator": coordinator, "nodes": nodes}

    def wrap(self, role: Role, command: list[str], sockets: Path) -> list[str]:
        """The command on its network. It does not see the local sockets of the others."""
        if "--coordinator" in command:
            at = command.index("--coordinator") + 1
            command = [*command[:at], f"{self._addresses[COORDINATOR.name]}:{PORT}", *command[at + 1 :]]
        script = 'mkdir -p "$0" && mount -t tmpfs -o mode=0700 tmpfs "$0" && exec "$@"'
        return ["ip", "netns", "exec", role.name, "sh", "-c", script, str(sockets), *command]

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Let what is sent along these vanish."""
        for cut in cuts:
            self._cuts[cut] = self._cuts.get(cut, 0) + 1
            if self._cuts[cut] == 1:
                self._route("add", cut)

    def heal(self, cuts: Iterable[Cut]) -> None:
        """Let it through again, but for what another partition cuts."""
        for cut in cuts:
            self._cuts[cut] -= 1
            if self._cuts[cut] == 0:
                self._route("del", cut)

    def _route(self, what: str, cut: Cut) -> None:
        sender, receiver = cut
        where = [] if sender == CLIENTS else ["-n", sender]
        run("ip", *where, "route", what, f"{self._addresses[receiver]}/32", "dev", "void")

    def _make_host(self, name: str, link: str) -> None:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", link, "master", "bridge", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "addr", "add", f"{self._addresses[name]}/{_NET.prefixlen}", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        _make_void("-n", name)


def _make_void(*where: str) -> None:
    """An interface that takes everything, without asking where it should go, and leads nowhere."""
    run("ip", *where, "link", "add", "void", "type", "veth", "peer", "name", "void-end")
    run("ip", *where, "link", "set", "void", "arp", "off", "up")
    run("ip", *where, "link", "set", "void-end", "up")


def cuts_of(target: Target, hit: Role, roles: Sequence[Role], pick: int) -> tuple[str, list[Cut]]:
    """What a partition around a process cuts, and how that is called. Pure.

    A process is cut off from everybody, from the rest of the cluster but not from the clients, or can hear
    and not be heard. "all": no node reaches another one.
    """
    servers = [role.name for role in roles]
    if target == "all":
        nodes = [role.name for role in roles if role != COORDINATOR]
        return "nodes apart", [(one, other) for one in nodes for other in nodes if one != other]
    others = [name for name in servers if name != hit.name]
    out = [(hit.name, other) for other in others]
    back = [(other, hit.name) for other in others]
    way = pick * 3 // PICKS
    if way == 0:
        clients = [(hit.name, CLIENTS), (CLIENTS, hit.name)]
        return "from all", [*out, *back, *clients]
    if way == 1:
        return "from the cluster", [*out, *back]
    return "one way", out
