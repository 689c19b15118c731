"""A cluster's YAML file: one coordinator, its nodes, and where they keep their data.

    data_dir: data/three-nodes      # relative to the current folder; --data-dir goes first
    insecure: false                 # true allows listeners that other machines reach
    coordinator:
      listen: 127.0.0.1:7070
    node_defaults:                  # for every node that does not say otherwise
      quota_bytes: 64GiB
    nodes:
      - id: 1
      - id: 2
        listen: 127.0.0.1:7072

Every key is known here with its bounds; anything else is refused with its line, before anything
starts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.node.config import NodeConfig
from tailrace.processes.layout import Layout, layout_of
from tailrace.protocol.errors import InvalidConfigError
from tailrace.protocol.limits import BEAT_SILENCE_MS_MAX, MIB, NAME_LENGTH_MAX, NODES_MAX
from tailrace.transport.endpoint import split_tcp

from .listen import listen_endpoint
from .units import TIB
from .yaml_values import Fields, Value, boolean, choice, duration_ms, integer, items, load, size, text

NODE_ID_MAX: Final = 2**31 - 1
TIMEOUT_MS_MAX: Final = 3_600_000
RETENTION_MS_MAX: Final = 2**53
BEAT_INTERVAL_MS_MAX: Final = BEAT_SILENCE_MS_MAX // 2
"""Subscribers that miss one beat still hear of the next before they take the coordinator for silent."""
_NO_ID: Final = -1
LOOPBACK: Final = "tcp://127.0.0.1:0"

Parser = Callable[[Value], Any]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A checked file. The nodes are in the order of the file."""

    file: Path
    layout: Layout
    coordinator: CoordinatorConfig
    nodes: tuple[NodeConfig, ...]
    node_defaults: NodeConfig
    """What a node would be that the file does not name; its id is no node's."""

    def node(self, node_id: int) -> NodeConfig:
        """The node of this id. Raises InvalidConfigError when the file has none."""
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        known = ", ".join(str(node.node_id) for node in self.nodes)
        raise InvalidConfigError(f"{self.file} has no node {node_id}; it has {known}")

    def joining(self, node_id: int) -> NodeConfig:
        """The node of this id, made from the file's `node_defaults` when it has none of that id."""
        if any(node.node_id == node_id for node in self.nodes):
            return self.node(node_id)
        if not 0 <= node_id <= NODE_ID_MAX:
            raise InvalidConfigError(f"{node_id} is no id of a node: it is from 0 to {NODE_ID_MAX}")
        return replace(
            self.node_defaults,
            node_id=node_id,
            data_dir=self.layout.node(node_id),
            ipc=self.layout.ipc(f"node-{node_id}"),
        )


def load_cluster(file: Path, *, data_dir: Path | None = None, port: int | None = None) -> ClusterConfig:
    """Read and check a file; `data_dir` and the coordinator's `port` go before what it says.

    Raises InvalidConfigError with the file, the line, the reason and a near miss.
    """
    root = Fields(load(file), ("data_dir", "insecure", "coordinator", "node_defaults", "nodes"))
    insecure = root.get("insecure", boolean, False)
    folder = root.require("data_dir", text) if data_dir is None else root.get("data_dir", text, "")
    layout = layout_of(Path(folder) if data_dir is None else data_dir)
    coordinator = root.get("coordinator", _coordinator(layout, insecure), None)
    coordinator = coordinator or _coordinator_config(layout, {})
    if port is not None:
        coordinator = _on_port(coordinator, port)
    endpoints = coordinator_endpoints(coordinator)
    parsers = _node_parsers(insecure)
    no_defaults: dict[str, Any] = {}
    defaults = root.get("node_defaults", lambda value: _settings(value, parsers), no_defaults)
    nodes: dict[int, NodeConfig] = {}
    for value in root.require("nodes", items):
        node = _node(value, layout, endpoints, parsers, defaults)
        if node.node_id in nodes:
            raise value.error(f"there are two nodes with id {node.node_id}")
        nodes[node.node_id] = node
    _check_ports(root.value, coordinator, *nodes.values())
    if len(nodes) > NODES_MAX:
        raise root.value.error(f"{len(nodes)} nodes, at most {NODES_MAX} are possible")
    return ClusterConfig(
        file=file,
        layout=layout,
        coordinator=coordinator,
        nodes=tuple(nodes.values()),
        node_defaults=_node_config(_NO_ID, layout, endpoints, defaults),
    )


def coordinator_endpoints(coordinator: CoordinatorConfig) -> tuple[str, ...]:
    """Where nodes find the coordinator: by its local socket, or else, as with other data, by its address.

    One of any interface is reached on this machine. (The nodes of `tailrace up`, whose `--port` may have
    moved it, are told the socket alone.)
    """
    host, port = split_tcp(coordinator.tcp)
    if port == 0:
        return (coordinator.ipc,)
    here = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}
    return (coordinator.ipc, f"tcp://{here[host]}:{port}" if host in here else coordinator.tcp)


def _check_ports(place: Value, coordinator: CoordinatorConfig, *nodes: NodeConfig) -> None:
    used: set[str] = set()
    for endpoint in (coordinator.tcp, coordinator.publisher_tcp, *(node.tcp for node in nodes)):
        _, port = split_tcp(endpoint)
        if port and endpoint in used:
            raise place.error(f"two processes listen on {endpoint.removeprefix('tcp://')}")
        used.add(endpoint)


def _listen(insecure: bool) -> Parser:
    return lambda value: listen_endpoint(value, insecure=insecure)


def _coordinator(layout: Layout, insecure: bool) -> Callable[[Value], CoordinatorConfig | None]:
    parsers: dict[str, Parser] = {
        "listen": _listen(insecure),
        "publisher_listen": _listen(insecure),
        "session_timeout_ms": duration_ms(100, TIMEOUT_MS_MAX),
        "beat_interval_ms": duration_ms(10, BEAT_INTERVAL_MS_MAX),
        "offsets_retention_ms": duration_ms(0, RETENTION_MS_MAX),
    }
    return lambda value: _coordinator_config(layout, _settings(value, parsers))


def _coordinator_config(layout: Layout, settings: dict[str, Any]) -> CoordinatorConfig:
    settings = dict(settings)
    listen = settings.pop("listen", CoordinatorConfig.tcp)
    publisher = settings.pop("publisher_listen", _with_port(listen, 0))
    return CoordinatorConfig(
        data_dir=layout.coordinator,
        tcp=listen,
        ipc=layout.ipc("coordinator"),
        publisher_tcp=publisher,
        publisher_ipc=layout.ipc("publisher"),
        **settings,
    )


def _on_port(coordinator: CoordinatorConfig, port: int) -> CoordinatorConfig:
    fields = vars(coordinator) | {"tcp": _with_port(coordinator.tcp, port)}
    return CoordinatorConfig(**fields)


def _with_port(endpoint: str, port: int) -> str:
    _, old = split_tcp(endpoint)
    return f"{endpoint.removesuffix(str(old))}{port}"


def _node_parsers(insecure: bool) -> dict[str, Parser]:
    return {
        "listen": _listen(insecure),
        "rack": _rack,
        "flush": choice("commit", "relaxed"),
        "ephemeral": boolean,
        "quota_bytes": size(4 * MIB, 128 * TIB),
        "reserve_bytes": size(0, TIB),
        "retention_check_ms": duration_ms(10, TIMEOUT_MS_MAX),
    }


def _rack(value: Value) -> str:
    rack = text(value)
    if len(rack) > NAME_LENGTH_MAX:
        raise value.error(f"{len(rack)} characters, at most {NAME_LENGTH_MAX} are possible")
    return rack


def _node(
    value: Value,
    layout: Layout,
    coordinator: tuple[str, ...],
    parsers: dict[str, Parser],
    defaults: dict[str, Any],
) -> NodeConfig:
    settings = defaults | _settings(value, {"id": integer(0, NODE_ID_MAX), **parsers})
    if "id" not in settings:
        raise value.error("'id' is missing")
    return _node_config(settings.pop("id"), layout, coordinator, settings)


def _node_config(
    node_id: int, layout: Layout, coordinator: tuple[str, ...], settings: dict[str, Any]
) -> NodeConfig:
    settings = dict(settings)
    return NodeConfig(
        node_id=node_id,
        data_dir=layout.node(node_id),
        coordinator=coordinator,
        tcp=settings.pop("listen", LOOPBACK),
        ipc=layout.ipc(f"node-{node_id}"),
        **settings,
    )


def _settings(value: Value, parsers: dict[str, Parser]) -> dict[str, Any]:
    """The settings that are there, each parsed."""
    fields = Fields(value, parsers)
    assert isinstance(value.data, dict)
    return {key: fields.require(key, parsers[key]) for key in value.data}
