"""A node that keeps nothing over a crash syncs nothing, and so commits in its network thread."""

from tailrace import Admin, Consumer, Producer
from tailrace.testing import Cluster

from ..patience import PATIENCE_S

RECORDS = 2_000


def test_what_a_node_without_a_writer_thread_stores() -> None:
    values = [b"%d" % number for number in range(RECORDS)]
    with Cluster(ephemeral=True) as cluster, Admin(cluster.bootstrap_servers) as admin:
        for name in ("kept", "deleted"):
            admin.create_topic(name, partitions=2, config={"retention_ms": 3_600_000})
        with Producer(cluster.bootstrap_servers) as producer:
            for name in ("kept", "deleted"):
                producer.send_many(name, values[: RECORDS // 2], partition=0)
                for value in values[RECORDS // 2 :]:
                    producer.send(name, value, partition=0)
        admin.delete_topic("deleted")
        assert read(cluster) == values
        cluster.kill(1)
        cluster.start(1)
        with Producer(cluster.bootstrap_servers) as producer:
            producer.send("kept", b"after a crash", partition=0).result(PATIENCE_S)


def read(cluster: Cluster) -> list[bytes | None]:
    """All of the topic that is kept."""
    options = {"bootstrap_servers": cluster.bootstrap_servers, "auto_offset_reset": "earliest"}
    found: list[bytes | None] = []
    with Consumer("kept", **options) as consumer:
        while len(found) < RECORDS:
            for records in consumer.poll(timeout_ms=int(PATIENCE_S * 1_000)).values():
                found += [record.value for record in records]
    return found
