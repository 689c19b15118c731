"""`python -m tests.simulation SEED...` replays seeds with their traces; `--count N` runs seeds 0 to N - 1."""

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from .guards import GUARDS, without
from .schedule import Violation
from .world import run


def attempt(seed: int, *, removed: str | None, trace: bool) -> str:
    """What was found, or nothing."""
    logging.disable(logging.CRITICAL)
    focus = GUARDS[removed].focus if removed else None
    with without(removed) if removed else nullcontext():
        try:
            world = run(seed, focus)
        except Violation as violation:
            return "\n".join([f"seed {seed}: {violation}", *(violation.__notes__ if trace else ())])
    if trace:
        checker = world.checker
        counts = f"{checker.acks} acks, {checker.reads} reads, {checker.elections} elections"
        print(*world.schedule.trace, f"{world.schedule.steps} events, {counts}", sep="\n")  # noqa: T201
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--without", choices=GUARDS, help="a guard to remove")
    options = parser.parse_args()
    seeds = options.seeds or range(options.first, options.first + options.count)
    one = partial(attempt, removed=options.without, trace=bool(options.seeds))
    began = time.monotonic()
    failed = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        results = map(one, seeds) if options.seeds else pool.map(one, seeds, chunksize=5)
        for found in filter(None, results):
            failed += 1
            print(found, flush=True)  # noqa: T201
    print(f"{len(seeds)} seeds, {failed} violations, {time.monotonic() - began:.0f} s")  # noqa: T201
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
