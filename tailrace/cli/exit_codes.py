"""What the command's exit status means. A number never changes its meaning."""

from typing import Final

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
STORAGE_FAULT: Final = 3
"""A node's or the coordinator's storage failed: check the disk; it is not restarted by itself."""
INTERRUPTED: Final = 130
"""Ctrl-C in a client command, as a shell reports SIGINT."""
BROKEN_PIPE: Final = 141
"""Whoever read the output is gone, as a shell reports SIGPIPE."""
