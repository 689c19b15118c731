"""What a node sets for its whole process when it starts."""

import ctypes
import logging
import sys
from typing import Final

from tailrace.protocol.limits import MIB

SWITCH_INTERVAL_S: Final = 0.000_1
"""How long a thread that wants the interpreter waits before it is given it. With Python's default of
5 ms the network thread would wait that long whenever the writer checks a group."""
FREED_BYTES_KEPT: Final = 32 * MIB
"""Freed memory that the allocator keeps at the end of each of its heaps; also the largest block that it
takes from a heap, which cannot be more (`HEAP_MAX_SIZE / 2`). Batches come and go: to take fresh pages
from the kernel for each of them costs more than to copy it (measured: fetches of 1 MiB 1.5 to 2 times
as fast, at half the CPU)."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

logger: Final = logging.getLogger(__name__)


def set_up_process() -> None:
    """Keep freed memory, hand the interpreter over quickly."""
    _keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _keep_freed_memory() -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        logger.debug("this C library has no mallopt; it keeps freed memory by rules of its own")
        return
    mallopt(_M_TRIM_THRESHOLD, FREED_BYTES_KEPT)
    mallopt(_M_MMAP_THRESHOLD, FREED_BYTES_KEPT)
