"""A disk that has hardly a page left as a folder is made on it: an error, and no signal, ends that."""

import subprocess
import sys
from pathlib import Path

import pytest

from ..patience import PATIENCE_S

SCRIPT = Path(__file__).with_name("first_opening.py")


@pytest.mark.parametrize("what", ["node", "coordinator", "groups", "offsets"])
def test_a_disk_that_is_full_at_the_first_opening(tmp_path: Path, what: str) -> None:
    """LMDB writes its reader table through a mapping: to a page that the disk lacks, that is SIGBUS."""
    mount = f"mount -t tmpfs -o size=24m tmpfs {tmp_path} && exec {sys.executable} {SCRIPT} {tmp_path} {what}"
    try:
        probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.split()[-1:] == ["passed"], done.stdout + done.stderr
