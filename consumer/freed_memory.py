"""Freed memory stays with a process that reads, up to a bound.

A large batch and its values are blocks that come and go together. glibc gives such blocks back to the kernel,
and takes fresh pages for the next ones, which costs more than what is done with them (measured: values of
64 KiB were read 1.5 times as fast without). But it learns: when a block is freed that the kernel has given,
blocks up to that size come from its heap from then on, of which up to twice as much stays when it is free
(mallopt(3), M_MMAP_THRESHOLD).

A consumer lives in an application's process. What that has set for itself by mallopt or GLIBC_TUNABLES holds:
glibc does not learn then.
"""

from functools import cache
from typing import Final

from tailrace.protocol.limits import MIB

BLOCK_BYTES: Final = 16 * MIB
"""Twice that is what two polls of large records take: what was fetched ahead, and the records before it, that
the application holds until it gets the next. glibc learns up to 32 MiB."""


@cache
def keep_freed_memory() -> None:
    """Have the allocator learn that blocks of BLOCK_BYTES come and go. Once a process; touches no memory."""
    bytes(BLOCK_BYTES)
