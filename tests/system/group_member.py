"""A member of a group in a process of its own, that says what happens to it, a JSON line each.

    python group_member.py '{"bootstrap_servers": ..., "topics": [...], "group_id": ..., ...}'

It commits by itself what it has printed. SIGTERM ends it cleanly.
"""

import json
import signal
import sys
from collections.abc import Collection
from typing import Any

from tailrace import Consumer, RebalanceListener, TopicPartition
from tailrace.protocol.errors import TailraceError


def say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Speaking(RebalanceListener):
    """Tells of every change."""

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        say("assigned", partitions=sorted(p.partition for p in partitions))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        say("revoked", partitions=sorted(p.partition for p in partitions))

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        say("lost", partitions=sorted(p.partition for p in partitions))


def main() -> None:
    options = json.loads(sys.argv[1])
    topics = options.pop("topics")
    stopping = False
    try:
        with Consumer(auto_offset_reset="earliest", **options) as consumer:

            def stop(*_: object) -> None:
                nonlocal stopping
                stopping = True
                consumer.wakeup()

            signal.signal(signal.SIGTERM, stop)
            consumer.subscribe(topics, listener=Speaking())
            say("ready")
            while not stopping:
                for partition, records in consumer.poll(timeout_ms=60_000, max_records=20).items():
                    values = [[record.offset, record.value.decode()] for record in records]
                    say("records", partition=partition.partition, records=values)
        say("ended")
    except TailraceError as error:
        say("failed", kind=type(error).__name__, message=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
