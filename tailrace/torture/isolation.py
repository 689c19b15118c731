"""Namespaces of the kernel: mounts and networks of our own, which go with the last of our processes.

Full disks and partitions need them. Root has them; others where the kernel lets users make user namespaces.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from typing import Final

from .plan import Kind

UNSHARED: Final = "TAILRACE_TORTURE_UNSHARED"
"""Set in the environment of a command that runs in namespaces of its own."""
_ISOLATED: Final[tuple[Kind, ...]] = ("partition", "disk-full")


def isolated(kinds: Collection[Kind]) -> bool:
    """Do these faults need namespaces, which this process does not have yet?"""
    return UNSHARED not in os.environ and any(kind in kinds for kind in _ISOLATED)


def refusal(kinds: Collection[Kind]) -> str | None:
    """Why these faults cannot be made here; None if they can."""
    if not isolated(kinds):
        return None
    what = " and ".join(kind for kind in _ISOLATED if kind in kinds)
    tools = ["unshare", "mount", *(["ip"] if "partition" in kinds else [])]
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{what}: the command {tool} is not here (it comes with util-linux and iproute2)"
    script = "mount -t tmpfs tmpfs /mnt"
    if "partition" in kinds:
        script += " && ip link add probe type bridge && ip link add from type veth peer name to"
    made = subprocess.run([*_unshare(kinds), "sh", "-c", script], capture_output=True, text=True, check=False)
    if made.returncode:
        reason = made.stderr.strip().splitlines()
        said = reason[-1] if reason else f"exit code {made.returncode}"
        return f"{what}: namespaces cannot be made here, try it as root ({said})"
    return None


def unshared(kinds: Collection[Kind], arguments: Sequence[str]) -> list[str]:
    """The command line that runs `tailrace` with `arguments` in namespaces of its own."""
    return [*_unshare(kinds), sys.executable, "-P", "-m", "tailrace", *arguments]


def _unshare(kinds: Collection[Kind]) -> list[str]:
    command = ["unshare", "--mount", "--propagation", "private"]
    if "partition" in kinds:
        command.append("--net")
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    return command


def run(*command: str) -> None:
    """A command of the system that must work. Raises subprocess.CalledProcessError."""
    subprocess.run(command, check=True, capture_output=True)
