"""Somebody who moves partitions, empties nodes and gives leadership back, now and then."""

from collections.abc import Sequence
from typing import Any

from tailrace.client.link import COORDINATOR as TO_COORDINATOR
from tailrace.protocol.admin_messages import DrainNode, ElectLeaders, MovePartitions, PartitionMove
from tailrace.protocol.errors import TailraceError

from .clients import Client

THROTTLES = (0, 0, 20_000)


class Operator(Client):
    """Asks for something about every `pause_s` seconds; what is refused was not possible then.

    `sizes`: how many replicas a partition may get.
    """

    def __init__(self, *args: Any, node_ids: Sequence[int], sizes: Sequence[int], pause_s: float) -> None:
        super().__init__(*args)
        self._node_ids = node_ids
        self._sizes = sizes
        self._pause_s = pause_s
        self._next_at = self.schedule.now + self.schedule.between(0.3, pause_s)
        self._busy = False

    def work(self, now: float) -> float:
        if self.quiet:
            return now + 0.5
        if now >= self._next_at and not self._busy:
            self._next_at = now + self.schedule.between(0, 2 * self._pause_s)
            request = self._wish()
            if request is not None:
                self._busy = True
                self.schedule.note(f"{self.name} asks for {request}")
                self.ask(TO_COORDINATOR, request, (), self._answered)
        return now + 0.5 if self._busy else self._next_at

    def _answered(self, reply: Any, _frames: Any) -> None:
        self._busy = False
        if isinstance(reply, TailraceError):
            self.schedule.note(f"{self.name} is told {reply}")

    def _wish(self) -> Any:
        topics = sorted(self.copy.state.topics)
        random = self.schedule.random
        wish = random.random()
        if not topics:
            return None
        if wish < 0.45:
            replicas = tuple(random.sample(self._node_ids, random.choice(self._sizes)))
            move = PartitionMove(random.choice(topics), 0, replicas)
            return MovePartitions(self.next_id(), moves=[move], throttle=random.choice(THROTTLES))
        if wish < 0.9:
            drained = [n.node_id for n in self.copy.state.nodes.values() if n.draining]
            node_id = drained[0] if drained else random.choice(self._node_ids)
            return DrainNode(self.next_id(), node_id=node_id, draining=not drained)
        return ElectLeaders(self.next_id())
