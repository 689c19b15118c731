"""What a follower hears when nothing is appended."""

import time

from tailrace.protocol.columns import encode
from tailrace.protocol.messages import ACKS_ALL, DescribeLogs, LogInfo, Produce

from ..patience import wait_until
from .conftest import House

NEVER_MS = 3_600_000


def test_its_log_start_follows_the_leaders(bare_house: House) -> None:
    bare_house.start_coordinator()
    bare_house.start(1, retention_check_ms=50)
    bare_house.start(2, retention_check_ms=NEVER_MS)
    topics = [bare_house.create(name, replicas=2, retention_bytes=10_000) for name in "ab"]
    topic = next(topic for topic in topics if topic.info.partitions[0].leader == 1)
    leader = bare_house.peer()
    batch = encode([bytes(6_000)], timestamps=time.time_ns() // 1_000_000)
    for _ in range(5):
        reply, _ = leader.ask(Produce, [batch], acks=ACKS_ALL, entries=[topic.entry()])
        assert reply.results[0].error.code == 0

    def log(node_id: int) -> LogInfo:
        reply, _ = bare_house.peer(bare_house.node_config(node_id).ipc).ask(DescribeLogs)
        return next(log for log in reply.logs if log.topic_id == topic.id)

    wait_until(lambda: (log(1).log_start_offset, log(2).log_start_offset) == (3, 3), "both start at 3")
    assert log(2).log_end_offset == 5
