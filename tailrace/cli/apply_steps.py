"""Carries out the plan of `tailrace apply`: asks the supervisor and the coordinator, and waits for both."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tailrace.processes.launch import Role
from tailrace.processes.layout import Layout
from tailrace.protocol.errors import NotEnoughNodesError, TailraceError, TimedOutError

from .apply_plan import Step
from .control import ask
from .move_progress import wait_for_moves
from .moving import leaving

if TYPE_CHECKING:
    from tailrace.client.admin import Admin
    from tailrace.client.descriptions import PartitionDescription

LOOK_EVERY_S: Final = 0.1


class Steps:
    """Each step may be done again after it was interrupted. Raises TimedOutError, TailraceError."""

    def __init__(
        self, admin: "Admin", layout: Layout, throttle: int, timeout_s: float, *, as_json: bool
    ) -> None:
        self._admin = admin
        self._layout = layout
        self._throttle = throttle
        self._timeout_s = timeout_s
        self._as_json = as_json

    def do(self, step: Step) -> None:
        """Do it, and wait until it is done."""
        if step.action == "remove" and step.node_id is not None:
            self._remove(step.node_id)
        elif step.action == "forget" and step.node_id is not None:
            self._admin.remove_node(step.node_id)
        elif step.action == "keep" and step.node_id is not None:
            self._admin.drain_node(step.node_id, cancel=True)
        elif step.action == "start":
            ask(self._layout, op="start", node_id=step.node_id)
            self._wait_until_ready(step.node_id)
        else:
            self._restart(step.node_id)

    def _restart(self, node_id: int | None) -> None:
        if node_id is not None:
            self._wait(lambda: not self._alone(node_id), f"{Role(node_id).name} is the only one in sync")
        ask(self._layout, op="restart", node_id=node_id)
        self._wait_until_ready(node_id)
        if node_id is not None:
            self._wait(lambda: not self._behind(node_id), f"{Role(node_id).name} is not in sync again")

    def _remove(self, node_id: int) -> None:
        progress = self._admin.drain_node(node_id, throttle_bytes_per_s=self._throttle)
        while progress.held > progress.stuck:
            wait_for_moves(self._admin, leaving(self._admin, node_id), as_json=self._as_json)
            progress = self._admin.drain_node(node_id, throttle_bytes_per_s=self._throttle)
        if progress.stuck:
            raise NotEnoughNodesError(
                f"no other node can take {progress.stuck} partitions of node {node_id}, so it was not "
                f"stopped: add nodes to the file, or keep it: tailrace cluster drain {node_id} --cancel"
            )
        ask(self._layout, op="stop", node_id=node_id)
        self._wait(lambda: self._member(node_id) is None, f"{Role(node_id).name} does not stop")
        self._admin.remove_node(node_id)

    def _member(self, node_id: int | None) -> dict[str, object] | None:
        members = ask(self._layout, op="status")["members"]
        return next((member for member in members if member["node_id"] == node_id), None)

    def _wait_until_ready(self, node_id: int | None) -> None:
        def ready() -> bool:
            member = self._member(node_id)
            if member is not None and member["failure"]:
                raise TailraceError(f"{Role(node_id).name} does not start: {member['failure']}")
            return member is not None and bool(member["ready"])

        self._wait(ready, f"{Role(node_id).name} is not ready")

    def _alone(self, node_id: int) -> bool:
        """Is there a partition with several replicas that only this node could lead?"""
        return any(len(part.replicas) > 1 and part.isr == (node_id,) for part in self._held(node_id))

    def _behind(self, node_id: int) -> bool:
        """Is there a partition that it has not caught up with, or that nobody leads?"""
        return any(
            part.leader is None or (node_id not in part.isr and not part.target)
            for part in self._held(node_id)
        )

    def _held(self, node_id: int) -> "list[PartitionDescription]":
        topics = self._admin.describe_topics()
        return [part for topic in topics for part in topic.partitions if node_id in part.replicas]

    def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                raise TimedOutError(f"{otherwise} after {self._timeout_s:g} s; call it again to go on")
            time.sleep(LOOK_EVERY_S)
