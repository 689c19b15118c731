"""Runs one coordinator or node in this process, for tests that start it under the shim.

python serve.py coordinator FOLDER
python serve.py node FOLDER NODE_ID COORDINATOR_ENDPOINT QUOTA_BYTES RESERVE_BYTES [--no-sync]

Prints its endpoint when it is ready, and ends when its standard input does. `--no-sync` opens LMDB
with sync=False: the mistake that the tests of power loss have to find.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.node.config import NodeConfig
from tailrace.node.main import Node
from tailrace.protocol.cluster import Listener


def without_sync(opened: Callable[..., Any]) -> Callable[..., Any]:
    """`lmdb.open`, but nothing is synced."""
    return lambda *args, **options: opened(*args, **(options | {"sync": False}))


def main() -> None:
    """See the head of the module."""
    role, folder, *rest = sys.argv[1:]
    process: Coordinator | Node
    if role == "coordinator":
        process = Coordinator(CoordinatorConfig(data_dir=Path(folder), tcp="tcp://127.0.0.1:0"))
    else:
        node_id, endpoint, quota_bytes, reserve_bytes, *flags = rest
        if "--no-sync" in flags:
            lmdb.open = lmdb.Environment = without_sync(lmdb.Environment)
        process = Node(
            NodeConfig(
                node_id=int(node_id),
                data_dir=Path(folder),
                coordinator=(endpoint,),
                quota_bytes=int(quota_bytes),
                reserve_bytes=int(reserve_bytes),
                retention_check_ms=50,
            )
        )

    def on_ready(listener: Listener) -> None:
        sys.stdout.write(listener.tcp + "\n")
        sys.stdout.flush()

    process.run(on_ready, parent_fd=sys.stdin.fileno())


if __name__ == "__main__":
    main()
