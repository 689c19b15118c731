"""Run by test_restarts.py: commits groups and reports each on stdout until it is killed. argv[1]: folder."""

import itertools
import os
import random
import sys
from pathlib import Path

from tailrace.node.storage import Append, Appended, Storage
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.limits import MIB

NOW = 1_700_000_000_000
TOPIC = bytes(range(16))


def main() -> None:
    """Until the end."""
    storage = Storage.open(Path(sys.argv[1]), quota_bytes=64 * MIB, reserve_bytes=MIB)
    storage.create([(TOPIC, partition) for partition in range(3)])
    logs = list(storage.logs.values())
    storage.begin_epochs([(log, 1) for log in logs])
    os.write(1, b"ready\n")
    chance = random.Random(os.getpid())
    sequences = [0, 0, 0]
    for number in itertools.count():
        appends = []
        for log in logs:
            records = chance.randrange(1, 9)
            batch = encode(
                [os.urandom(chance.choice((10, 700, 9_000)))] * records,
                timestamps=NOW + number,
                producer_id=1,
                producer_epoch=0,
                base_sequence=sequences[log.partition],
            )
            sequences[log.partition] += records
            appends.append(Append(log, memoryview(bytearray(batch)), parse_header(batch), NOW))
        for append, result in zip(appends, storage.commit(appends), strict=True):
            if not isinstance(result, Appended):
                raise SystemExit(f"refused: {result}")
            line = [append.log.partition, result.base_offset, result.last_offset, append.header.crc]
            os.write(1, f"{line}\n".encode())
        if number % 20 == 19:
            log = chance.choice(logs)
            storage.retain(log, -1, log.size_bytes // 2, NOW)


if __name__ == "__main__":
    main()
