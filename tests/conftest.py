"""What all tests share."""

import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tailrace import Admin
from tailrace.client import signals
from tailrace.testing import Cluster

# A busy machine is no failure, nor is bad luck with what was drawn.
settings.register_profile(
    "tailrace", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
settings.load_profile("tailrace")


SLOW = {
    "cli/test_torture.py",
    "client/test_interrupted_lives.py",
    "consumer/local/test_interrupted_transactions.py",
    "consumer/test_called_by_handlers.py",
    "consumer/test_faults.py",
    "consumer/test_interrupted_anywhere.py",
    "consumer/test_interrupts.py",
    "durability/test_faulty_disk.py",
    "durability/test_power_loss.py",
    "producer/test_called_by_handlers.py",
    "producer/test_faults.py",
    "producer/test_interrupted_anywhere.py",
    "simulation/test_small_model.py",
    "system/test_apply.py",
    "system/test_ctrl_c.py",
    "system/test_dead_addresses.py",
    "system/test_examples.py",
    "system/test_faults_under_load.py",
    "system/test_joining.py",
    "system/test_large_log.py",
    "system/test_moving.py",
    "system/test_word_count.py",
}
"""Files that take longest on the whole: marked `slow`, so that everything else is through within minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def time_outs_call_nothing() -> None:
    """The handler of SIGALRM that ends a test which takes too long raises, and calls nothing of ours."""
    signals.SIGNALS.remove(signal.SIGALRM)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """A shell starts what runs in the background with SIGINT ignored, which every child would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def free_address() -> Iterator[str]:
    """An address where nobody listens, kept from others who ask for any port; a test may bind to it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{kept.getsockname()[1]}"


MakeTopic = Callable[..., str]

_numbers = count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One node, for all tests that break nothing."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap_servers) as admin:
        yield admin


def new_topic(admin: Admin, partitions: int = 1) -> str:
    """A topic that no other test uses."""
    name = f"topic-{next(_numbers)}"
    admin.create_topic(name, partitions=partitions)
    return name


@pytest.fixture
def topic(admin: Admin) -> MakeTopic:
    """Makes new topics."""
    return partial(new_topic, admin)
