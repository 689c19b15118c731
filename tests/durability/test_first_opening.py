"""A disk that has hardly a page left as a folder is made on it: an error, and no signal, ends that."""

from pathlib import Path

import pytest

from ..small_disk import run_on_small_disk

SCRIPT = Path(__file__).with_name("first_opening.py")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["node", "coordinator", "groups", "offsets"])
def test_a_disk_that_is_full_at_the_first_opening(tmp_path: Path, what: str) -> None:
    """LMDB writes its reader table through a mapping: to a page that the disk lacks, that is SIGBUS."""
    run_on_small_disk(SCRIPT, tmp_path, what)
