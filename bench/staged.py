"""What early stopping saves, and whether it costs anything: the same search with it and without it, on ResNet-20 and CIFAR-10.

python bench/staged.py [TRIALS]      16 trials each by default: about ten minutes on two cores, nothing else running

Both searches ask with the same sampler and seed, keep nothing in a store, and estimate latency from the graph. Recoveries are
short (half an epoch to one of 10,000 images), so in real searches a larger share is saved. Prints for each how many candidates
ended how, seconds in all and in trainings, and the hypervolume of the front (accuracy, logarithm of the latency, size; against
the original's latency and size and an accuracy of 0.5).
"""

import math
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from orchestrator import search
from orchestrator.values.results import CandidateResult, RunResult

CASE = Path(__file__).parents[2] / "shared" / "cases" / "cifar10"
SEARCH = """
schema = 1
name = "staged"
title = "with early stopping or without"
sampler = "{sampler}"
trials = {trials}
early_stopping = {stopping}
"""
SAMPLER = "nsga2"
WORST_QUALITY = 0.5


def found(folder: Path, *, stopping: bool, trials: int) -> RunResult:
    """One search."""
    file = folder / f"{stopping}.toml"
    file.write_text(SEARCH.format(sampler=SAMPLER, trials=trials, stopping=str(stopping).lower()))
    return search(
        target="raspberry-pi-4",
        model=f"{CASE}/model.py:resnet20",
        data=f"{Path(__file__).with_name('sampler_grid.py').resolve()}:data",
        search=str(file),
        threads=1,
        epochs=(0.5, 1.0),
        store="none",
        max_drop=0.03,
        output=folder / str(stopping),
    )


def hypervolume(run: RunResult) -> float:
    """Of the front, each objective scaled to 1 at the original (latency: e-folds) or at the worst quality; larger is better."""
    original = run.baseline

    def point(candidate: CandidateResult) -> tuple[float, float, float]:
        if candidate.quality is None or candidate.artifact is None or original.artifact is None:
            raise ValueError(f"{candidate.id} has no figures")
        gained = (candidate.quality.validation.value - WORST_QUALITY) / (1 - WORST_QUALITY)
        faster = math.log(original.latency[0].median_ms / candidate.latency[0].median_ms)
        return gained, faster, 1 - candidate.artifact.size_bytes / original.artifact.size_bytes

    points = [point(run.candidate(name)) for name in run.front if name != original.id]
    points = [p for p in points if min(p) > 0]
    volume, below = 0.0, 0.0
    for height in sorted({p[2] for p in points}):  # slices of equal size: the area of those that reach as high
        area, least = 0.0, 0.0
        for gained, faster in sorted(((p[0], p[1]) for p in points if p[2] >= height), reverse=True):
            if faster > least:
                area += gained * (faster - least)
                least = faster
        volume += area * (height - below)
        below = height
    return volume


def main(trials: int) -> None:
    """Both searches, a line each."""
    os.environ["ORCHESTRATE_QEMU"] = "/nonexistent"  # estimates: nothing is simulated
    with tempfile.TemporaryDirectory() as folder:
        for stopping in (True, False):
            run = found(Path(folder), stopping=stopping, trials=trials)
            states = Counter(c.state for c in run.candidates)
            training = sum(c.seconds.get("training", 0.0) for c in run.candidates)
            print(
                f"{'with' if stopping else 'without'} early stopping: "
                f"{', '.join(f'{count} {state}' for state, count in sorted(states.items()))}; {run.seconds['total']:.0f} s, "
                f"{training:.0f} s of them in trainings; hypervolume {hypervolume(run):.4f}, front of {len(run.front)}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
