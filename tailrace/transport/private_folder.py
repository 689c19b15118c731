"""The folder of the local sockets. Sockets follow the umask, so the folder guards them."""

import errno
import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make the folder, or see that it is ours and has mode 0700. Raises OSError.

    A folder with other things in it, such as a system's, is refused rather than closed to others.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"folder {folder} belongs to another user")
    if not found.st_mode & 0o077:
        return
    with os.scandir(folder) as entries:
        if not all(stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode) for entry in entries):
            raise PermissionError(
                errno.EPERM, f"folder {folder} is open to other users; sockets need a folder of mode 0700"
            )
    folder.chmod(0o700)
