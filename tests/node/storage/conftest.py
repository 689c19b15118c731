"""Every test of the storage ends with a walk through all that is stored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage import Storage

from .support import open_storage


class House:
    """One data folder, opened as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage: Storage | None = None

    def open(self, **options: Any) -> Storage:
        """Open the folder, for the first time or again."""
        self.storage = open_storage(self.folder, **options)
        return self.storage

    def close(self, *, clean: bool = True) -> None:
        """Check everything and close."""
        storage, self.storage = self.storage, None
        if storage is not None:
            report = storage.verify()
            storage.close(clean)
            assert report.problems == []

    def reopen(self, *, clean: bool = True, **options: Any) -> Storage:
        """Close and open again."""
        self.close(clean=clean)
        return self.open(**options)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A folder for one node."""
    house = House(tmp_path / "node-1")
    yield house
    house.close()


@pytest.fixture
def storage(house: House) -> Storage:
    """Open storage that holds nothing."""
    return house.open()
