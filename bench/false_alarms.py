"""How often `orchestrate check` is wrong beside a busy neighbour: copies called regressions, and slowdowns that are missed.

python bench/false_alarms.py [--copies 200] [--slower 20] [--real 1.10] [--budget 15] [--log FILE]

The model is a chain of 40 equal 3x3 convolutions (16 channels, 32x32, about 1.4 ms), one thread. The neighbour computes in
bursts of random length (0.05 to 2 s), with pauses of the same kind, on whatever core the system gives it. The slower model has
that much more work of the same kind. Limits are the defaults; the seed, and with it the order of blocks, differs each time.

Every check is a line of JSON in the log; checks that are in it already are not done again, so a run that was stopped goes on.
Needs about 15 minutes on an otherwise idle machine.
"""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))

import orchestrator
from bench.timing import LAYERS, network

NEIGHBOUR = """
import random, time
import numpy
draw = random.Random(0)
a = numpy.random.default_rng(0).random((300, 300))
while True:
    end = time.monotonic() + draw.uniform(0.05, 2)
    while time.monotonic() < end:
        a = a @ a
        a /= a.max()
    time.sleep(draw.uniform(0.05, 2))
"""


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that computes in bursts."""
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=environment)
    time.sleep(1)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def checked(kind: str, k: int, baseline: Path, candidate: Path, budget_s: float) -> dict[str, object]:
    """One check of latency; size and quality are no matter of chance here."""
    begin = time.monotonic()
    found = orchestrator.check(baseline, candidate, threads=1, budget_s=budget_s, seed=1000 * k, max_growth=None, max_drop=None)
    (latency,) = found.criteria
    return {
        "kind": kind,
        "k": k,
        "verdict": latency.verdict,
        "change": None if latency.change is None else round(latency.change, 4),
        "low": None if latency.low is None else round(latency.low, 4),
        "high": None if latency.high is None else round(latency.high, 4),
        "rounds": latency.details["rounds"],
        "basis": latency.details["basis"],
        "waited": latency.details["waited_share"],
        "seconds": round(time.monotonic() - begin, 2),
    }


def at_most(wrong: int, total: int) -> float:
    """Upper end of the one-sided 95 % interval of a rate (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if wrong >= total else float(beta.ppf(0.95, wrong + 1, total - wrong))


def summary(kind: str, found: list[dict[str, object]]) -> str:
    """What came of one kind of check, in a line."""
    verdicts = Counter(str(each["verdict"]) for each in found)
    seconds = np.array([float(str(each["seconds"])) for each in found])
    total = len(found)
    counted = f"regressed {verdicts['regressed']}, undecided {verdicts['undecided']}, ok {verdicts['ok']}"
    if kind == "copy":
        counted += f"; false alarms {verdicts['regressed'] / total:.1%} (at most {at_most(verdicts['regressed'], total):.1%})"
    else:
        counted += f"; found {verdicts['regressed'] / total:.0%}"
    bases = Counter(str(each["basis"]) for each in found)
    basis = ", ".join(f"{name} {count}" for name, count in sorted(bases.items()))
    return (
        f"{kind:8} {total} checks: {counted}; seconds: median {np.median(seconds):.1f}, longest {seconds.max():.1f}, "
        f"all {seconds.sum():.0f}; time by {basis}"
    )


def main() -> None:
    """All checks that are not in the log, then the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--slower", type=int, default=20)
    parser.add_argument("--real", type=float, default=1.10, help="work of the slower model, beside the baseline's")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds of one check")
    parser.add_argument("--log", type=Path, default=None)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, neighbour():
        folder = Path(scratch)
        more = math.ceil(LAYERS * said.real)
        for name, layers in (("baseline", LAYERS), ("copy", LAYERS), ("slower", more)):
            onnx.save(network(layers), folder / f"{name}.onnx")
        log = said.log or folder / "log.jsonl"
        kept = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        for kind, count in (("copy", said.copies), ("slower", said.slower)):
            done = [each for each in kept if each["kind"] == kind and each["k"] < count]
            with log.open("a") as file:
                for k in sorted(set(range(count)) - {each["k"] for each in done}):
                    done.append(checked(kind, k, folder / "baseline.onnx", folder / f"{kind}.onnx", said.budget))
                    line = json.dumps(done[-1])
                    print(line, file=sys.stderr, flush=True)
                    print(line, file=file, flush=True)
            if done:
                print(summary(kind if kind == "copy" else f"{more / LAYERS:.2f}x", done), flush=True)


if __name__ == "__main__":
    main()
