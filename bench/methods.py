"""What the methods reach on the real cases, a line each: accuracy lost, size and latency beside the original, side by side.

python bench/methods.py [ROW ...]     rows: int8 prune-1.37 prune-2 structure joint distillation minilm (all by default)

Needs the cases beside the checkout (../shared/cases) and an idle machine: about 50 minutes on two cores.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.api.search import evaluate
from orchestrator.plugin import CandidateResult, ParameterValue, Recipe, Step
from orchestrator.plugin.parameters import checked
from orchestrator.plugin.registry import Registry
from orchestrator.values.search import SearchOptions
from orchestrator.values.task import TaskSpec

CASES = Path(__file__).parents[2] / "shared" / "cases"
METHODS = Registry.discover().methods()

EPOCHS = 6.0
SHORT_EPOCHS = 2.0
SEEDS = (0, 1, 2)


def step(method: str, **parameters: ParameterValue) -> Step:
    """A step with the parameters that are given, the others at their defaults."""
    found = METHODS[method]
    return Step(method=method, version=found.version, parameters=checked(method, found.parameters, parameters))


def recovery(epochs: float = EPOCHS, **parameters: ParameterValue) -> Step:
    """The training that follows a cut, as the product's search offers it first to networks with batch norm."""
    return step("distillation", **{"epochs": epochs, "optimizer": "sgd", "label_weight": 0.1, **parameters})


def pruned(ratio: float) -> Step:
    """Channels inside the blocks, more of them where the output depends on them less, in multiples of 4."""
    return step("channel-pruning", ratio=ratio, scope="sensitivity", layers="inner", importance="taylor")


INT8 = step("static-int8")
STRUCTURE = step("block-removal", blocks=3)

HOST, PI = "host", "raspberry-pi-4"
"""Where the channel multiple comes from: 16 on an x86 CPU with AVX-512, 4 on a Cortex-A72. All times are taken on this host."""

ROWS: dict[str, tuple[str, Sequence[Step]]] = {
    "int8": (HOST, (INT8,)),
    "prune-1.37": (PI, (pruned(0.27), recovery(rate=0.5))),
    "prune-2": (PI, (pruned(0.5), recovery())),
    "structure": (HOST, (STRUCTURE, recovery())),
    "joint": (HOST, (STRUCTURE, recovery(), step("graph-rewriting"), step("static-int8", form="qoperator"))),
}


def options(case: str, model: str, data: str, seed: int = 0, target: str = HOST) -> SearchOptions:
    """A case, timed on this host with one thread."""
    task = TaskSpec(model=f"{CASES / case}/model.py:{model}", data=f"{CASES / case}/data.py:{data}")
    return SearchOptions(target=target, task=task, threads=1, seed=seed)


def show(event: dict[str, Any]) -> None:
    """Say on stderr what is done now."""
    if event["event"] == "phase":
        print(f"  ... {event['what']}", file=sys.stderr, flush=True)


def line(name: str, original: CandidateResult, found: CandidateResult) -> str:
    """One row of the table."""
    if found.failure is not None or found.quality is None or found.artifact is None or original.artifact is None:
        return f"{name:14} failed: {found.failure.message if found.failure else 'no result'}"
    quality, drop = found.quality.validation, found.quality.validation.difference
    macs = (original.macs or 0) / (found.macs or 1)
    size = found.artifact.size_bytes / original.artifact.size_bytes
    words = [f"{name:14} quality {quality.value:.4f}"]
    if drop is not None:
        words.append(f"change {drop.value * 100:+.2f} points ({drop.low * 100:+.2f} to {drop.high * 100:+.2f})")
    words.append(f"MACs 1/{macs:.2f}")
    words.append(f"size {size:.3f}")
    for latency in found.latency:
        if latency.ratio is not None:
            words.append(f"latency {latency.ratio.value:.3f} ({latency.ratio.low:.3f} to {latency.ratio.high:.3f})")
        if latency.disturbed:
            words.append("disturbed")
    return ", ".join(words)


def cifar10(rows: Sequence[str]) -> None:
    """The rows on ResNet-20; the joint recipe shares the training of the structure."""
    for target in (HOST, PI):
        here = [row for row in rows if ROWS[row][0] == target]
        recipes = [Recipe(steps=tuple(ROWS[row][1])) for row in here]
        if not recipes:
            continue
        original, *found = evaluate(options("cifar10", "resnet20", "cifar10", target=target), recipes, observer=show)
        for row, recipe, result in zip(here, recipes, found, strict=True):
            print(line(row, original, result), f"\n{'':14} {recipe}", flush=True)


def distillation() -> None:
    """The teacher against hard labels alone: the same pruned network, the same epochs, three seeds."""
    gains = []
    for seed in SEEDS:
        taught, labelled = (Recipe(steps=(pruned(0.5), recovery(SHORT_EPOCHS, label_weight=weight))) for weight in (0.1, 1.0))
        _, *found = evaluate(options("cifar10", "resnet20", "cifar10", seed, PI), [taught, labelled], observer=show)
        values = [result.quality.validation.value if result.quality else float("nan") for result in found]
        gains.append((values[0] - values[1]) * 100)
        print(f"distillation   seed {seed}: teacher {values[0]:.4f}, labels alone {values[1]:.4f}", flush=True)
    spread = statistics.stdev(gains)
    print(f"distillation   mean gain {statistics.mean(gains):+.2f} points, standard deviation {spread:.2f}, {len(gains)} seeds")


def minilm() -> None:
    """A transformer, INT8 weights."""
    recipes = [Recipe(steps=(step("dynamic-int8"),)), Recipe(steps=(step("weight-only"),))]
    original, *found = evaluate(options("minilm", "encoder", "docstrings"), recipes, observer=show)
    for recipe, result in zip(recipes, found, strict=True):
        print(line("minilm", original, result), f"\n{'':14} {recipe}", flush=True)


def main(wanted: Sequence[str]) -> None:
    """Print the rows that were asked for."""
    known = [*ROWS, "distillation", "minilm"]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"unknown row '{name}'; there are {', '.join(known)}")
    rows = [name for name in ROWS if name in wanted or not wanted]
    if rows:
        cifar10(rows)
    if "distillation" in wanted or not wanted:
        distillation()
    if "minilm" in wanted or not wanted:
        minilm()


if __name__ == "__main__":
    main(sys.argv[1:])
