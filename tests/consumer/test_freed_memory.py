"""Large batches that come and go do not take fresh pages from the kernel each time."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")

ROUNDS = 200
PROGRAM = f"""
import resource

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def rounds(count, body, value):
    before = faults()
    for _ in range(count):
        batch = bytes(body)  # a copy of its own, and its values beside it
        values = [bytes(value) for _ in range(16)]
        del batch, values
    return faults() - before

from tailrace.consumer.freed_memory import keep_freed_memory
keep_freed_memory()
body, value = bytearray(512 << 10), bytearray(64 << 10)
rounds(2, body, value)
print(rounds({ROUNDS}, body, value))
"""


def faults(*environment: str) -> int:
    """Page faults of ROUNDS rounds, in a process of its own."""
    command = ["env", *environment, sys.executable, "-c", PROGRAM]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120).stdout)


def test_memory_that_was_freed_is_used_again() -> None:
    assert faults() < ROUNDS


def test_what_the_application_has_set_holds() -> None:
    """Given back at once: all pages are fresh in each round."""
    assert faults("GLIBC_TUNABLES=glibc.malloc.trim_threshold=65536") > 100 * ROUNDS
