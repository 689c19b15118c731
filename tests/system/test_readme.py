"""README's first block, run by `sh` as it stands there; only the set-up and the port are the test's own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"\*\*Run it\*\*.*?```sh\n(.*?)```", re.DOTALL)


def commands() -> str:
    """The block between the set-up of the virtual environment and the example, which has its own test."""
    match = BLOCK.search((ROOT / "README.md").read_text())
    assert match is not None
    install, *lines, example = match[1].splitlines()
    assert install.startswith("python3 -m venv")
    assert example.startswith("python examples/flights.py")
    return "\n".join(lines)


def test_the_first_block_does_what_it_says(tmp_path: Path, free_address: str) -> None:
    port = free_address.rpartition(":")[2]
    block = commands()
    assert "configs/three-nodes.yaml" in block
    block = block.replace("configs/three-nodes.yaml", f"configs/three-nodes.yaml --port {port}")
    env = dict(
        os.environ,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        TMPDIR=str(tmp_path),
        TAILRACE_BOOTSTRAP_SERVERS=free_address,
    )
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run(
        [shell, "-e", "-c", block],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\s*2001$", done.stdout, re.MULTILINE), done.stdout
    assert "ready" in done.stdout
