"""A small disk of its own for a script, which says "passed" in the end."""

import subprocess
import sys
from pathlib import Path

import pytest

from .patience import PATIENCE_S


def run_on_small_disk(script: Path, folder: Path, *arguments: str) -> None:
    """Run it with `folder`, a tmpfs of 24 MiB, and `arguments`. Skips where none can be mounted."""
    mount = f"mount -t tmpfs -o size=24m tmpfs {folder} && exec {sys.executable} {script} {folder}"
    try:
        probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", " ".join([mount, *arguments])],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.split()[-1:] == ["passed"], done.stdout + done.stderr
