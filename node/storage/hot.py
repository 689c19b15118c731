"""Which end of each log is surely in the page cache: the last bytes this process appended, over all logs."""

from collections import deque
from typing import Final

from tailrace.protocol.limits import KIB, MIB

from .partition_log import PartitionLog

HOT_BYTES: Final = 64 * MIB
APPEND_BYTES_MIN: Final = 4 * KIB
"""What an append counts at least, since it is remembered by itself: a page."""


class HotTail:
    """Moves the logs' `hot_offset` on as bytes are appended. Belongs to the writer thread."""

    def __init__(self) -> None:
        self._appends: deque[tuple[PartitionLog, int, int]] = deque()
        self._bytes = 0

    def appended(self, log: PartitionLog, size: int) -> None:
        """`size` bytes were appended and committed, up to the log's present end."""
        counted = max(size, APPEND_BYTES_MIN)
        self._appends.append((log, log.log_end_offset, counted))
        self._bytes += counted
        while self._bytes > HOT_BYTES:
            oldest, end_offset, its_bytes = self._appends.popleft()
            self._bytes -= its_bytes
            # The log may have been cut at either end since.
            oldest.hot_offset = min(max(oldest.hot_offset, end_offset), oldest.log_end_offset)
