"""What was committed stays readable when one replica is left, also if it was written just before a rest."""

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.testing import Cluster

from ..patience import wait_until

RECORDS = 100


def test_the_last_replica_knows_what_was_committed() -> None:
    with Cluster(nodes=3, session_timeout_ms=1_000) as cluster, Admin(cluster.bootstrap_servers) as admin:
        made = admin.create_topic("t", replication_factor=3, config={"min_insync_replicas": 2})
        with Producer(cluster.bootstrap_servers) as producer:
            producer.send_many("t", [b"%d" % number for number in range(RECORDS)])

        def watermarks() -> set[int]:
            nodes = admin.describe_logs().values()
            return {log.high_watermark for node in nodes for log in node.logs}

        wait_until(lambda: watermarks() == {RECORDS}, "every replica knows that all is committed")
        leader = made.partitions[0].leader
        assert leader is not None
        for node_id in (leader, next(number for number in cluster.node_ids if number != leader)):
            cluster.kill(node_id)
        with Consumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition("t", 0)])
            read: list[bytes | None] = []

            def read_on() -> bool:
                read.extend(record.value for each in consumer.poll(100).values() for record in each)
                return len(read) >= RECORDS

            wait_until(read_on, "everything is read from the last replica")
        assert read == [b"%d" % number for number in range(RECORDS)]
