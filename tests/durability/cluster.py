"""A coordinator, and a node under the shim, for the fault tests."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tailrace.protocol.limits import MIB

from ..patience import PATIENCE_S

SERVE = Path(__file__).with_name("serve.py")


class Served:
    """One process of serve.py; ends with the block that started it."""

    def __init__(
        self, *arguments: object, env: Mapping[str, str] | None = None, stderr: Path | None = None
    ) -> None:
        self._stderr = stderr.open("ab") if stderr is not None else None
        self.process = subprocess.Popen(
            [sys.executable, SERVE, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(env if env is not None else os.environ),
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        if not self.endpoint:
            self.__exit__(None, None, None)
            raise AssertionError(f"{arguments[0]} did not start: exit code {self.process.returncode}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close its standard input, which ends it cleanly."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=PATIENCE_S)
        self.process.kill()
        self.process.communicate()
        if self._stderr is not None:
            self._stderr.close()


def start_node(
    folder: Path,
    coordinator: Served,
    *flags: str,
    node_id: int = 1,
    env: Mapping[str, str] | None = None,
    quota_bytes: int = 64 * MIB,
    reserve_bytes: int = 2 * MIB,
) -> Served:
    """A node on `folder`; its messages go to `node.log` beside it."""
    log = folder.with_suffix(".log")
    return Served(
        "node", folder, node_id, coordinator.endpoint, quota_bytes, reserve_bytes, *flags, env=env, stderr=log
    )
