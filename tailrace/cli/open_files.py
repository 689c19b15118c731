"""How many files a command may have open."""

import resource
from typing import Final

OPEN_FILES_MAX: Final = 65_536
"""Every connection takes a file descriptor, every client of a load test several; the usual 1,024 are few."""


def raise_file_limit() -> None:
    """As far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
