"""The cluster as commands reach it: an admin client. It warns on stderr when it has to be waited for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailrace.client.admin import Admin


@contextmanager
def admin_of(bootstrap_servers: str, timeout_s: float) -> "Iterator[Admin]":
    """An admin client that is connected; each of its calls may take `timeout_s`, as may connecting."""
    from tailrace.client.admin import Admin

    with Admin(bootstrap_servers, request_timeout_ms=round(timeout_s * 1000)) as admin:
        admin.list_topics()
        yield admin
