"""Another benchmark of this folder on a slower disk: every fdatasync of its processes takes longer.

    python benchmarks/slowed.py [--delay-ms 5] produce.py [options of that one]

Needs Linux and a C compiler (the delay is made by a library that is loaded into all of its processes).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.durability import recording

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the other one, and end with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-ms", type=int, default=5)
    parser.add_argument("script", help="a file of this folder")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        control.write_text(f"delay {options.delay_ms}")
        command = [sys.executable, str(HERE / options.script), *options.options]
        sys.exit(subprocess.run(command, env=recording.environment(control=control), check=False).returncode)


if __name__ == "__main__":
    main()
