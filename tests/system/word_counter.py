"""Counts words as a member of a group, in local transactions; says each that was stored.

python word_counter.py BOOTSTRAP_SERVERS TOPIC GROUP FOLDER
"""

import sys
from collections import Counter

from tailrace import Consumer


def main(servers: str, topic: str, group: str, folder: str) -> None:
    with Consumer(
        topic,
        bootstrap_servers=servers,
        group_id=group,
        auto_offset_reset="earliest",
        offset_store=folder,
        enable_auto_commit=False,
        max_poll_records=50,
    ) as consumer:
        while True:
            for partition, records in consumer.poll(timeout_ms=None).items():
                with consumer.local_transaction(partition) as transaction:
                    words = Counter(word for record in records for word in record.value.split())
                    for word, count in words.items():
                        transaction.put(word, str(int(transaction.get(word) or 0) + count).encode())
                sys.stdout.write("stored\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
