"""A node as a process: node id, data folder, coordinator endpoint, ipc endpoint."""

import signal
import sys
from pathlib import Path

from tailrace.node.config import NodeConfig
from tailrace.node.main import Node

node_id, data_dir, coordinator, ipc = sys.argv[1:]
node = Node(
    NodeConfig(
        node_id=int(node_id),
        data_dir=Path(data_dir),
        coordinator=(coordinator,),
        ipc=ipc,
        quota_bytes=256 * 1024 * 1024,
        reserve_bytes=4 * 1024 * 1024,
    )
)
signal.signal(signal.SIGTERM, lambda *_: node.stop())


def ready(_: object) -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


node.run(ready)
