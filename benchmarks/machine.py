"""Make a machine ready to be measured: touch its memory.

    python benchmarks/machine.py [--share 0.85]

A virtual machine gets a page of memory from its host at the first touch, which takes many times as long as
any later one. What runs on a machine that was just started measures that: for each batch, the page cache
of the log, and every buffer. One pass over the free memory, and it measures its own work.
"""

import argparse
import mmap
import time
from pathlib import Path
from typing import Final

GIB: Final = 1 << 30


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.85, help="of the memory that is available")
    touch_memory(parser.parse_args().share)


if __name__ == "__main__":
    main()
