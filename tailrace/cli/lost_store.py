"""A coordinator that begins with nothing while its nodes hold logs: its store was lost, or misplaced."""

from contextlib import suppress

from tailrace.processes.layout import Layout
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.text import plural


def lost_store(layout: Layout) -> str | None:
    """What to say of it; None if all is well. To be asked before any process is started."""
    store = layout.coordinator / "data.mdb"
    if store.exists():
        return None
    topics: set[bytes] = set()
    for folder in layout.root.glob("node-*"):
        from tailrace.node.storage.stopped import stored_partitions  # hardly ever needed

        with suppress(DataFolderError):  # the node itself says what is wrong
            topics.update(row.topic_id for row in stored_partitions(folder))
    if not topics:
        return None
    return (
        f"WARNING: the coordinator began with nothing, since {store} was not there, and nodes hold the logs "
        f"of {plural(len(topics), 'topic')} that this cluster does not know: nobody can read them. Stop it, "
        f"put {layout.coordinator} back as it was last, since the nodes refuse an older copy, and start it "
        "again; or, if nobody needs the logs, remove the folders of the nodes"
    )
