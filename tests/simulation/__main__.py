"""`python -m tests.simulation SEED...` replays seeds with their traces; `--count N` runs seeds 0 to N - 1."""

import argparse
import logging
import sys
import time

from .schedule import Violation
from .world import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--log", action="store_true", help="the processes' own log as well")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG)
    logging.disable(logging.NOTSET if options.log else logging.CRITICAL)
    failed = []
    began = time.perf_counter()
    seeds = options.seeds or range(options.first, options.first + options.count)
    for seed in seeds:
        try:
            world = run(seed)
        except Violation as violation:
            failed.append(seed)
            print(f"seed {seed}: {violation}")  # noqa: T201
            if options.seeds:
                print(*violation.__notes__, sep="\n")  # noqa: T201
        else:
            if options.seeds:
                print(*world.schedule.trace, sep="\n")  # noqa: T201
                checker = world.checker
                print(world.schedule.steps, "events,", checker.tokens, "batches,", checker.acks, "acks,",  # noqa: T201
                      checker.reads, "reads,", checker.elections, "elections")  # fmt: skip
    seconds = time.perf_counter() - began
    print(f"{len(list(seeds))} seeds in {seconds:.1f} s; violations: {failed or 'none'}")  # noqa: T201
    return bool(failed)


sys.exit(main())
