"""Whole clusters of real processes."""

from collections.abc import Iterator

import pytest

from tailrace import Admin
from tailrace.testing import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, for all tests that leave them as they found them."""
    with Cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap_servers) as admin:
        yield admin
