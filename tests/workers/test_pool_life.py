"""What becomes of a pool, and of its workers, that is not stopped."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailrace import Admin, Producer
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.testing import Cluster
from tailrace.workers import Pool

from ..conftest import MakeTopic
from ..descriptors import descriptors
from ..patience import PATIENCE_S, wait_until


def running(pool: Pool) -> list[int]:
    """The workers' processes, once all are ready."""
    wait_until(
        lambda: all(worker["state"] == "running" for worker in pool.metrics()["workers"]), "the workers run"
    )
    return [worker["pid"] for worker in pool.metrics()["workers"]]


def are_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_pool_that_is_forgotten_ends(cluster: Cluster, topic: MakeTopic, admin: Admin) -> None:
    name = topic(2)
    before = descriptors()
    pool = Pool(repr, name, f"{name}-forgotten", processes=2, bootstrap_servers=cluster.bootstrap_servers)
    pool.start()
    pids = running(pool)
    with pytest.warns(ResourceWarning, match=f"the pool of '{name}-forgotten' was not stopped"):
        del pool
    wait_until(lambda: are_gone(pids), "the workers end")
    wait_until(lambda: descriptors() == before, "its files are closed")
    assert admin.describe_group(f"{name}-forgotten").members == ()


def test_a_pool_that_ends_and_is_forgotten_leaves_no_files(cluster: Cluster, topic: MakeTopic) -> None:
    name = topic()
    before = descriptors()
    pool = Pool(repr, name, f"{name}-ends", stop_at_end=True, bootstrap_servers=cluster.bootstrap_servers)
    pool.start()
    assert pool.wait(PATIENCE_S)
    del pool
    wait_until(lambda: descriptors() == before, "its files are closed")


LOADING = """
    import os, sys, time
    from pathlib import Path
    from tailrace.workers import Pool

    def load(path):
        Path(path).write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    class Handler:
        def __reduce__(self):
            return load, (sys.argv[3],)

        def __call__(self, record):
            pass

    pool = Pool(Handler(), sys.argv[2], "loading", bootstrap_servers=sys.argv[1])
    pool.start()
    pool.wait()
"""


def test_a_worker_that_loads_for_ever_ends_with_its_pool(
    cluster: Cluster, topic: MakeTopic, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    command = [sys.executable, "-c", textwrap.dedent(LOADING), cluster.bootstrap_servers, topic(), str(told)]
    with subprocess.Popen(command) as process:
        wait_until(lambda: told.exists() and told.read_text(), "the worker loads its handler")
        process.kill()
    wait_until(lambda: are_gone([int(told.read_text())]), "the worker ends")


FORKED = """
    import os, sys
    from tailrace.protocol.errors import ClosedError
    from tailrace.workers import Pool

    with Pool(repr, sys.argv[2], "forked", bootstrap_servers=sys.argv[1]) as pool:
        child = os.fork()
        if child == 0:
            told = 0
            for use in (pool.wait, pool.metrics, pool.start):
                try:
                    use()
                except ClosedError:
                    told += 1
            print(told, repr(pool).endswith(f"belongs to process {os.getppid()}>"), flush=True)
            sys.exit(7)
        print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print(pool.wait(0), len(pool.metrics()["workers"]), flush=True)
"""


def test_a_fork_is_told_and_the_pool_goes_on(cluster: Cluster, topic: MakeTopic) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(FORKED)]
    done = subprocess.run(
        [*command, cluster.bootstrap_servers, topic()], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout.splitlines() == ["3 True", "child: 7", "False 1"], done.stderr
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


FORKING = """
    import os, sys, warnings
    from tailrace.workers import Pool

    def fork(record):
        warnings.simplefilter("ignore")  # 3.12 and later warn of threads
        child = os.fork()
        if child == 0:
            sys.exit(3)
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode()

    names = {"output_topic": sys.argv[2] + "-out", "dead_letter_topic": sys.argv[2] + "-dead"}
    pool = Pool(fork, sys.argv[2], "forking", stop_at_end=True, bootstrap_servers=sys.argv[1], **names)
    pool.run()
    done = pool.metrics()
    print(done["records"], done["dead_letters"], done["restarts"])
"""


def test_the_child_of_a_handler_that_forks_is_no_worker(cluster: Cluster, topic: MakeTopic) -> None:
    name = topic()
    with Admin(cluster.bootstrap_servers) as admin, Producer(cluster.bootstrap_servers) as producer:
        for other in ("out", "dead"):
            admin.create_topic(f"{name}-{other}")
        producer.send_many(name, [b"1", b"2", b"3"])
    command = [sys.executable, "-c", textwrap.dedent(FORKING), cluster.bootstrap_servers, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["3", "0", "0"]), done.stderr


def test_run_is_for_the_main_thread() -> None:
    pool = Pool(repr, "t", "g")
    with (
        ThreadPoolExecutor() as executor,
        pytest.raises(InvalidArgumentError, match=r"only the main thread gets: use `with`, or start\(\)"),
    ):
        executor.submit(pool.run).result()
    assert not pool.started
