"""Who the node says it is, and the requests that say so. Values only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tailrace.protocol.cluster import Listener
from tailrace.protocol.messages import Heartbeat, LeaveCluster, RegisterNode

from .config import NodeConfig
from .storage.environment import Storage


@dataclass(frozen=True, slots=True)
class Identity:
    """`clean`: the node's last stop left nothing to doubt. `durable`: no stop does (`flush: commit`).

    `openings`: the marks of the last openings of its storage, this process's at the end.
    """

    node_id: int
    listener: Listener
    storage_id: str
    rack: str
    clean: bool
    durable: bool
    openings: tuple[int, ...]

    @classmethod
    def of(cls, config: NodeConfig, listener: Listener, storage: Storage) -> Self:
        """That of the node that has opened this storage."""
        return cls(
            config.node_id,
            listener,
            storage.storage_id,
            config.rack,
            clean=storage.clean,
            durable=config.flush == "commit" and not config.ephemeral,
            openings=storage.openings,
        )

    def register(self, request_id: int, *, was_member: bool, topic_ids: Iterable[bytes]) -> RegisterNode:
        """Registers the node. One that was a member before has not stopped since."""
        return RegisterNode(
            request_id,
            node_id=self.node_id,
            listener=self.listener,
            storage_id=self.storage_id,
            rack=self.rack,
            clean=self.clean or was_member,
            topic_ids=sorted(topic_ids),
            durable=self.durable,
            openings=list(self.openings),
        )

    def beat(self, request_id: int, node_epoch: int, applied_version: int) -> Heartbeat:
        """Says that the node lives, and what it has applied."""
        return Heartbeat(
            request_id, node_id=self.node_id, node_epoch=node_epoch, applied_version=applied_version
        )

    def leave(self, request_id: int, node_epoch: int) -> LeaveCluster:
        """Says that the node stops."""
        return LeaveCluster(request_id, node_id=self.node_id, node_epoch=node_epoch)
