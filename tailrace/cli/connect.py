"""The cluster as commands reach it: an admin client, and a word when it makes people wait."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tailrace.client.admin import Admin

SILENT_S: Final = 1.0
"""Who waits for longer wants to know what for."""


@contextmanager
def admin_of(bootstrap_servers: str, timeout_s: float) -> "Iterator[Admin]":
    """An admin client that is connected; each of its calls may take `timeout_s`, as may connecting."""
    from tailrace.client.admin import Admin

    with Admin(bootstrap_servers, request_timeout_ms=round(timeout_s * 1000)) as admin:
        with waiting_is_told(bootstrap_servers, timeout_s):
            admin.list_topics()
        yield admin


@contextmanager
def waiting_is_told(bootstrap_servers: str, timeout_s: float) -> Iterator[None]:
    """In this block the coordinator is asked for the first time: say once on stderr if that takes a second.

    With each address and why it does not answer.
    """
    over = threading.Event()
    if timeout_s > SILENT_S:  # else the error says it all
        threading.Thread(target=_watch, args=(bootstrap_servers, timeout_s, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(bootstrap_servers: str, timeout_s: float, over: threading.Event) -> None:
    if over.wait(SILENT_S):
        return
    from tailrace.transport.endpoint import diagnose, parse_bootstrap

    endpoints = parse_bootstrap(bootstrap_servers)
    told = "; ".join(f"{endpoint.removeprefix('tcp://')}: {diagnose(endpoint)}" for endpoint in endpoints)
    if not over.is_set():
        click.echo(f"{told}; trying for {timeout_s:g} s", err=True)
