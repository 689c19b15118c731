"""ARCHITECTURE.md names modules that exist, and every folder of the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
MAP = dict(re.findall(r"(?m)^\| `([\w/]+/)` \| (.*) \|$", TEXT))
FOLDERS = (
    "tailrace/protocol/", "tailrace/transport/", "tailrace/client/", "tailrace/cli/",
    "tailrace/bench/", "tailrace/torture/", "tailrace/processes/",
    "node/", "node/storage/", "coordinator/", "producer/", "consumer/",
)  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_on_the_map_exist(folder: str) -> None:
    named = re.findall(r"`(\w+)(/?)`", MAP[folder])
    assert named
    for name, is_folder in named:
        path = ROOT / folder / name
        assert path.is_dir() if is_folder else path.with_suffix(".py").is_file(), name


def test_paths_exist() -> None:
    paths = re.findall(r"`([\w/]+\.py)`", TEXT)
    assert paths
    for path in paths:
        assert (ROOT / path).is_file() or (ROOT / "tailrace" / path).is_file(), path
