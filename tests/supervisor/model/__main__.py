"""``make soak``: ten thousand seeded storms on each event loop. One that fails prints the command that repeats it."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time

from tests.supervisor.model.playing import Disagreement, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.supervisor.model", description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--backend", choices=["asyncio", "trio"], help="one of the two event loops; both if not given")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # each storm reports hundreds of crashes, as it should
    failed = 0
    for backend in [options.backend] if options.backend else ["asyncio", "trio"]:
        began, whole = time.monotonic(), 0
        for seed in range(options.first, options.first + options.count):
            try:
                whole += play(random.Random(seed), backend)
            except Disagreement as error:
                failed += 1
                print(f"{error}\nrepeat: {sys.executable} -m tests.supervisor.model", end=" ")
                print(f"--first {seed} --count 1 --backend {backend}", flush=True)
        took = time.monotonic() - began
        print(f"{backend}: {options.count} storms in {took:.0f} s, {whole} compared to their end", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
