"""Another benchmark of this folder on a slower disk: every fdatasync of its processes takes longer.

    python benchmarks/slowed.py [--delay-ms 5] produce.py [options of that one]

Needs `.[dev]`, Linux and a C compiler: the delay is made by a library that is loaded into all processes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from arguments import natural, run

from tests.durability import recording

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the other one, and end with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-ms", type=natural, default=5)
    parser.add_argument("script", help="a file of this folder")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        control.write_text(f"delay {options.delay_ms}")
        command = [sys.executable, str(HERE / options.script), *options.options]
        code, _ = run(command, env=recording.environment(control=control))
    sys.exit(code)


if __name__ == "__main__":
    main()
