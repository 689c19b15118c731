"""Make a machine ready to be measured: touch its memory. And tell what of it bounds the figures.

    python benchmarks/machine.py [--share 0.85]

A virtual machine gets a page of memory from its host at the first touch, which takes many times as long as
any later one. What runs on a machine that was just started measures that: for each batch, the page cache
of the log, and every buffer. One pass over the free memory, and it measures its own work.

A record on its way is handed from thread to thread. To wake one on another core, which sleeps, takes ten
times as long as on the same core where the host of a virtual machine has to be asked.

What Python does in a second bounds what is done for each record. On a machine that others use, too, it may
be half of what it was an hour before: figures are compared within one run.

No log that syncs each group before the next is written faster than a loop that only writes and syncs.

What a record costs depends on how Python was built: see docs/performance.md.
"""

import argparse
import mmap
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from arguments import share

GIB: Final = 1 << 30
MIB: Final = 1 << 20
WAKE_UPS: Final = 2_000
ADDITIONS: Final = 1_000_000
ROUNDS: Final = 9
GROUP_BYTES: Final = 4 * MIB
"""About what a node writes at a time of large records."""
GROUPS: Final = 100
REPORTING: Final = Path("/sys/module/page_reporting/parameters/page_reporting_order")
"""Free blocks of so many pages, as a power of two, are given back to the host of a virtual machine."""
ORDER_MAX: Final = 10
"""The kernel has none larger: above it, none is."""


def available_bytes() -> int:
    """What could be allocated now without swapping."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def touch_memory(share: float = 0.85) -> None:
    """Touch so much of what is available, give it back, and say what that took."""
    size = int(available_bytes() * share) // mmap.PAGESIZE * mmap.PAGESIZE
    started = time.monotonic()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size, flags=flags).close()
    took = time.monotonic() - started
    page_us = took / (size / mmap.PAGESIZE) * 1e6
    print(f"touched {size / GIB:.1f} GiB of memory in {took:.0f} s, {page_us:.1f} us a page")
    if REPORTING.exists() and int(REPORTING.read_text()) <= ORDER_MAX:
        print(
            "this kernel gives free memory back to its host, so that it is new again at the next touch:"
            " figures vary, large writes most.\n"
            f"As root, `echo {ORDER_MAX + 1} > {REPORTING}` keeps it, until the next boot."
        )


def wake_up_us(cores: tuple[int, int]) -> float:
    """The median time until a process that waits for an eventfd runs, from the write that wakes it."""
    there, back = os.eventfd(0), os.eventfd(0)
    fork = multiprocessing.get_context("fork")
    echo = fork.Process(target=_echo, args=(there, back, cores[1]), daemon=True)
    allowed = os.sched_getaffinity(0)
    echo.start()
    try:
        os.sched_setaffinity(0, {cores[0]})
        took = []
        for _ in range(WAKE_UPS):
            started = time.perf_counter()
            os.eventfd_write(there, 1)
            os.eventfd_read(back)
            took.append((time.perf_counter() - started) / 2 * 1e6)
    finally:
        os.sched_setaffinity(0, allowed)
        echo.terminate()
        echo.join()
        os.close(there)
        os.close(back)
    return statistics.median(took)


def _echo(there: int, back: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        os.eventfd_read(there)
        os.eventfd_write(back, 1)


def additions_per_s() -> float:
    """How many integers a loop in Python adds, median of ROUNDS."""
    took = []
    for _ in range(ROUNDS):
        total, started = 0, time.perf_counter()
        for number in range(ADDITIONS):
            total += number
        took.append(time.perf_counter() - started)
    return ADDITIONS / statistics.median(took)


def synced_mb_s() -> float:
    """MB/s (10^6 bytes) of a loop that writes GROUP_BYTES to a new file and syncs them, median of GROUPS."""
    group = os.urandom(GROUP_BYTES)
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(GROUPS):
            started = time.perf_counter()
            os.write(file.fileno(), group)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return GROUP_BYTES / statistics.median(took) / 1e6


def speed() -> str:
    """What bounds the figures, in a line."""
    cores = sorted(os.sched_getaffinity(0))
    same, other = wake_up_us((cores[0], cores[0])), wake_up_us((cores[0], cores[-1]))
    cost = f"a wake-up takes {same:.0f} us on the same core, {other:.0f} us on another"
    disk = f"{GROUP_BYTES // MIB} MiB written and synced, again and again: {synced_mb_s():,.0f} MB/s"
    return f"Python adds {additions_per_s() / 1e6:.0f} M integers a second; {cost}; {disk}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=share, default=0.85, help="of the memory that is available")
    touch_memory(parser.parse_args().share)
    print(speed())
    print(f"Python {sys.version}")


if __name__ == "__main__":
    main()
