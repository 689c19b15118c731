"""What has to be done for a running cluster to be as its YAML file says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.node.config import NodeConfig

from .cluster_config import ClusterConfig

Settings = Mapping[str, Any]

_NO_SETTINGS: Final = frozenset({"node_id", "data_dir", "coordinator", "ipc", "publisher_ipc"})
"""They follow from the data folder and the id, or are the coordinator's."""
_KEYS: Final = {"tcp": "listen", "publisher_tcp": "publisher_listen"}
"""What the file calls them."""
_FIXED_OF_COORDINATOR: Final = {
    "listen": "clients and nodes know the coordinator by it",
    "publisher_listen": "clients and nodes are connected to it",
}
_FIXED_OF_NODE: Final = {
    "ephemeral": "it says what the data of the node is worth: add a node of another id, and remove this one",
}


@dataclass(frozen=True)
class Known:
    """A node as the coordinator knows it."""

    alive: bool
    draining: bool


@dataclass(frozen=True)
class Running:
    """The processes of a supervisor, with what they were started with, and all nodes of the cluster.

    `replicas_max`: some partition is to be held by so many nodes.
    """

    coordinator: Settings
    nodes: Mapping[int, Settings]
    known: Mapping[int, Known]
    replicas_max: int = 0


@dataclass(frozen=True)
class Step:
    """One thing to do; `changes` are settings with their old and new values. No `node_id`: the coordinator.

    `keep` ends the draining of a node that the file names again; `forget` is for one that was drained and
    stopped already.
    """

    action: Literal["restart", "start", "keep", "remove", "forget"]
    node_id: int | None
    changes: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def text(self) -> str:
        """Such as `restart node 2: flush commit -> relaxed`."""
        name = "the coordinator" if self.node_id is None else f"node {self.node_id}"
        if self.action == "start":
            return f"start {name}"
        if self.action == "remove":
            return f"remove {name}: move everything off it, stop it, forget it"
        if self.action == "keep":
            return f"keep {name}, which is draining: nothing more moves off it"
        if self.action == "forget":
            return f"forget {name}, which was emptied and stopped"
        changes = ", ".join(f"{key} {_shown(old)} -> {_shown(new)}" for key, old, new in self.changes)
        return f"restart {name}: {changes}" if changes else f"restart {name}"


@dataclass(frozen=True)
class Plan:
    """Steps in their order; nothing is done while something is refused."""

    steps: tuple[Step, ...]
    refused: tuple[str, ...]


def settings_of(config: NodeConfig | CoordinatorConfig) -> Settings:
    """What a file can set for a process, by the file's keys."""
    return {_KEYS.get(key, key): value for key, value in vars(config).items() if key not in _NO_SETTINGS}


def make_plan(running: Running, wanted: ClusterConfig, *, restart: bool = False) -> Plan:
    """First the coordinator, then new nodes and those that stay, since those that go need them; then changed
    ones one by one.

    `restart`: also what runs and has not changed.
    """
    refused: list[str] = []
    steps: list[Step] = []
    nodes = {node.node_id: settings_of(node) for node in wanted.nodes}
    changes = _changes(running.coordinator, settings_of(wanted.coordinator))
    refused += _fixed("the coordinator", changes, _FIXED_OF_COORDINATOR)
    if changes or restart:
        steps.append(Step("restart", None, changes))
    for node_id in nodes.keys() - running.nodes.keys():
        if node_id in running.known and running.known[node_id].alive:
            refused.append(f"node {node_id} runs already, but not under this `tailrace up`: stop it first")
    steps += [Step("start", node_id) for node_id in nodes if node_id not in running.nodes]
    steps += [Step("keep", n) for n in nodes if n in running.known and running.known[n].draining]
    for node_id, settings in nodes.items():
        changes = _changes(running.nodes.get(node_id, settings), settings)
        refused += _fixed(f"node {node_id}", changes, _FIXED_OF_NODE)
        if changes or (restart and node_id in running.nodes):
            steps.append(Step("restart", node_id, changes))
    removed = running.nodes.keys() - nodes.keys()
    others = [n for n, node in running.known.items() if node.alive and not node.draining and n not in removed]
    if removed and len({*nodes, *others}) < running.replicas_max:
        refused.append(
            f"{len({*nodes, *others})} nodes would be left, and there are partitions with "
            f"{running.replicas_max} replicas"
        )
    steps += [Step("remove", node_id) for node_id in running.nodes if node_id in removed]
    for node_id, known in running.known.items():
        if known.draining and not known.alive and node_id not in {*nodes, *running.nodes}:
            steps.append(Step("forget", node_id))
    return Plan(tuple(steps), tuple(refused))


def _changes(before: Settings, after: Settings) -> tuple[tuple[str, Any, Any], ...]:
    return tuple((key, before.get(key), value) for key, value in after.items() if before.get(key) != value)


def _fixed(name: str, changes: tuple[tuple[str, Any, Any], ...], fixed: Mapping[str, str]) -> list[str]:
    return [
        f"{key} of {name} cannot change from {_shown(old)} to {_shown(new)} while it runs: {fixed[key]}"
        for key, old, new in changes
        if key in fixed
    ]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value.removeprefix("tcp://") or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
