"""One coordinator and nodes, in the threads of one process that ends with its standard input.

Arguments: a folder, how many nodes. Prints the coordinator's address once all are ready.
"""

import sys
import threading
from pathlib import Path

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.node.config import NodeConfig
from tailrace.node.main import Node
from tailrace.protocol.cluster import Listener

MIB = 1024 * 1024


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    listeners: list[Listener] = []
    ready = threading.Semaphore(0)

    def on_ready(listener: Listener) -> None:
        listeners.append(listener)
        ready.release()

    coordinator = Coordinator(CoordinatorConfig(data_dir=folder / "coordinator", tcp="tcp://127.0.0.1:0"))
    threads = [threading.Thread(target=coordinator.run, args=(on_ready,))]
    threads[0].start()
    ready.acquire()
    address = listeners[0].tcp
    nodes = [
        Node(
            NodeConfig(
                node_id=node_id,
                data_dir=folder / f"node-{node_id}",
                coordinator=(address,),
                ipc=f"ipc://{folder}/{node_id}.sock",
                quota_bytes=256 * MIB,
            )
        )
        for node_id in range(1, count + 1)
    ]
    for node in nodes:
        threads.append(threading.Thread(target=node.run, args=(on_ready,)))
        threads[-1].start()
    for _ in nodes:
        ready.acquire()
    sys.stdout.write(address.removeprefix("tcp://") + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    for part in (*nodes, coordinator):
        part.stop()
    for thread in threads:
        thread.join()


main()
