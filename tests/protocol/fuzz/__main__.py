"""``python -m tests.protocol.fuzz [INPUTS [TARGET...]]``: a million inputs for each target, unless told otherwise.

All but ``beside`` print one line of JSON each: inputs a second, and resident memory after all inputs as a multiple of
that after a tenth of them, which ``frames`` and ``steady`` hold against 1.05. ``beside`` prints how long others wait.
Exit 1: a target fell, hung or grew, or others waited too long; the input that did it is left in the folder that is
named.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.protocol.fuzz import beside, seeds

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("frames", "live", "steady", "beside")
HANG = 20
"""Seconds for one input."""


def fuzz(target: str, inputs: int) -> bool:
    if target == "beside":
        return beside.main() == 0
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    seeds.write(corpus, "frames" if target == "frames" else "server")
    seeds.write_words(folder / "words")
    options = [f"-timeout={HANG}", "-rss_limit_mb=0", "-max_len=512", "-print_final_stats=0", "-verbosity=0"]
    options += [f"-runs={2 * inputs}", f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/", str(corpus)]
    command = [sys.executable, "-P", "-m", f"tests.protocol.fuzz.{target}", str(inputs), *options]
    with (folder / "stderr").open("w") as stderr:
        done = subprocess.run(command, cwd=ROOT, stderr=stderr, check=False)
    if done.returncode:
        print(f"{target}: exit code {done.returncode}; see {folder}", flush=True)
        print((folder / "stderr").read_text()[-4000:], file=sys.stderr, flush=True)
    return done.returncode == 0


def main(words: list[str]) -> int:
    inputs = int(words[0]) if words else 1_000_000
    targets = words[1:] or [*TARGETS]
    failed = [target for target in targets if not fuzz(target, inputs)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
