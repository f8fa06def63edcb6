"""kill -9 at random moments of small searches: of the main process, the build worker, a measuring process, everything.

python bench/kills.py [--kills 50] [--seed 0] [--kills-a-run 5]

Each run is killed a few times and resumed after each kill; then it ends by itself. Printed: each run's seed, and what did not
hold (tests/study/killing.py says what must): nothing complete lost, changed or made twice, every file whole, all trials in
the results, the recipes that an unkilled run begins with among them, no process and no temporary file left.
"""

import argparse
import runpy
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))

from orchestrator.report.results import read_results
from tests.conftest import PROJECTS, tiny_onnx
from tests.study.killing import Killed

TRIALS = 6


def _project(folder: Path) -> list[str]:
    """A small network and its data as files; the options of a search on them."""
    onnx.save(tiny_onnx(), folder / "model.onnx")
    data = runpy.run_path(str(PROJECTS / "classifier" / "data.py"))["splits"](count=200)
    np.savez(folder / "arrays.npz", **{f"{n}_{k}": a for n, (x, y) in data.items() for k, a in (("x", x), ("y", y))})
    return ["--model", str(folder / "model.onnx"), "--data", str(folder / "arrays.npz"), "--trials", str(TRIALS)]


def _recipes(run: Path) -> set[str]:
    return {c.id for c in read_results(run).candidates}


def _first(options: list[str], run: Path) -> set[str]:
    """The candidates of an unkilled run that no sampler chose: what comes after a kill is drawn from another seed."""
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator", "search", *options, "--dry-run"], check=True, capture_output=True, text=True
    )
    starts = sum(line.startswith("starts") for line in said.stdout.splitlines())
    return {c.id for c in sorted(read_results(run).candidates, key=lambda c: c.trial or 0)[:starts]}


def main() -> int:
    """Print what did not hold; how many things it was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-a-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    kills: Counter[str] = Counter()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = _project(folder)
        unkilled = Killed(folder=folder / "unkilled", options=options, seed=0)
        unkilled.until_done(0)
        found += unkilled.found
        wanted = _first(options, unkilled.run)
        seed = said.seed
        while kills.total() < said.kills:
            begin = time.monotonic()
            one = Killed(folder=folder / f"seed{seed}", options=options, seed=seed)
            one.until_done(min(said.kills_a_run, said.kills - kills.total()))
            if (one.run / "results.json").is_file() and not wanted <= _recipes(one.run):
                one.found.append(f"seed {seed}: it never tried {sorted(wanted - _recipes(one.run))}")
            kills += one.kills
            found += one.found
            victims = ", ".join(f"{count} {victim}" for victim, count in one.kills.items())
            print(f"seed {seed}: killed {victims}; {time.monotonic() - begin:.0f} s; {len(one.found)} findings", flush=True)
            for what in one.found:
                print(f"  {what}", flush=True)
            seed += 1
    print(f"{kills.total()} kills ({', '.join(f'{count} {victim}' for victim, count in kills.items())}): {len(found)} findings")
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
