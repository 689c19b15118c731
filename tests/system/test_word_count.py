"""Exactly once into local state: a word count that is right to the last record after 50 kill -9."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tailrace import Producer, read_local_state
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import PATIENCE_S, wait_until

COUNTER = Path(__file__).with_name("word_counter.py")
KILLS = 50
WORKERS = 3
STORED_BEFORE_KILL_MAX = 6
WORDS = [f"word{number}".encode() for number in range(200)]
SEED = 20_26


class Worker:
    """A counting process, and how often it has stored something."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(COUNTER), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.stored = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            self.stored += 1

    def kill(self) -> None:
        self.process.kill()
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        self._reader.join()
        assert not errors, errors.decode()


@contextmanager
def text_flowing(servers: str, topic: str, random: Random) -> Iterator[Counter[bytes]]:
    """Lines are produced until the block is left; what they hold by then."""
    sent: Counter[bytes] = Counter()
    over = threading.Event()

    def produce() -> None:
        with Producer(servers, linger_ms=1) as producer:
            while not over.wait(0.01):
                for _ in range(20):
                    words = random.choices(WORDS, k=random.randint(1, 8))
                    producer.send(topic, b" ".join(words), key=words[0])
                    sent.update(words)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def counted(folder: Path) -> Counter[bytes]:
    counts: Counter[bytes] = Counter()
    for entry in read_local_state(folder):
        counts[entry.key] += int(entry.value)
    return counts


def test_the_count_is_right_after_fifty_kills(cluster: Cluster, topic: MakeTopic, tmp_path: Path) -> None:
    random = Random(SEED)
    name = topic(partitions=6)
    servers = cluster.bootstrap_servers
    folder = tmp_path / "state"
    workers: list[Worker] = []

    def start() -> Worker:
        return Worker(servers, name, "word-count", str(folder))

    try:
        with text_flowing(servers, name, Random(SEED + 1)) as sent:
            workers += [start() for _ in range(WORKERS)]
            for _ in range(KILLS):
                victim = random.choice(workers)
                enough = victim.stored + random.randint(1, STORED_BEFORE_KILL_MAX)
                wait_until(lambda: victim.stored >= enough, "a worker goes on")  # noqa: B023
                victim.kill()
                workers[workers.index(victim)] = start()
        wait_until(lambda: counted(folder).total() >= sent.total(), "everything is counted")
    finally:
        for worker in workers:
            worker.kill()
    print(f"seed {SEED}: {sent.total()} words counted over {KILLS} kills")  # noqa: T201
    assert counted(folder) == sent
