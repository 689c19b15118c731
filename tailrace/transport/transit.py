"""How much has passed over a connection: one message may take longer than its sender may be silent."""

import socket
import struct
import sys
from contextlib import suppress
from typing import Final

_TCP_INFO: Final = struct.Struct("=120xQQ8xI")
"""Of Linux's `struct tcp_info`: tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes."""


def passed(descriptor: int) -> int:
    """A number that changes while bytes come, or while bytes that wait here are taken by the other side.

    What is taken as soon as it is sent does not count: the kernel of a process that hangs does that, too.
    Always 0 for what is no TCP connection, and where the system does not tell.
    """
    if sys.platform == "linux":
        with suppress(OSError), socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as end:
            info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            if len(info) == _TCP_INFO.size:
                acknowledged, received, waiting = _TCP_INFO.unpack(info)
                return int(received + (acknowledged if waiting else 0))
    return 0
