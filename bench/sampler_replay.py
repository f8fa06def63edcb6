"""The kept grid of really evaluated recipes (`sampler_grid.jsonl`), searched offline by the product's own loop of questions.

The space, the starters, what is told of a candidate, its constraints and the treatment of recipes that are asked for twice are
the product's (`orchestrator/searching`): only building and measuring are looked up in the grid.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import moocore
import numpy as np
import optuna

from orchestrator.building.protocol import OfferReply
from orchestrator.plugin.parameters import narrowed
from orchestrator.plugin.registry import Registry
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.proposer import PendingCandidate, Proposer
from orchestrator.study.recovery import enqueue_first
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction
from orchestrator.values.recipe import BASELINE, Recipe, Step
from orchestrator.values.results import ArtifactResult, CandidateResult, LatencyResult, QualityResult, SplitQuality
from orchestrator.values.target import Limits

GRID = Path(__file__).with_name("sampler_grid.jsonl")
RANGES: dict[str, dict[str, dict[str, Any]]] = {
    "block-removal": {"blocks": {}},
    "channel-pruning": {"ratio": {"low": 0.15, "high": 0.6, "step": 0.15}},
    "distillation": {"epochs": {"low": 0.5, "high": 1.0, "step": 0.5}},
    "graph-rewriting": {},
    "static-int8": {
        "scheme": {"choices": ("u8s8", "s8s8")},
        "form": {"choices": ("qdq", "qoperator")},
        "calibration": {"choices": ("minmax", "percentile")},
    },
}
POINTS_OF_A_STRUCTURE_SERIES = 5 * 2 * 18
"""Of one number of removed blocks: pruning ratios, lengths of recovery, files."""
ENLARGED = 1.05
"""The reference point: so many times the grid's longest latency and largest file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The grid as candidates by the identifiers of their recipes, the original among them."""

    space: SearchSpace
    candidates: dict[str, CandidateResult]

    @classmethod
    def read(cls, path: Path = GRID) -> "Grid":
        """The kept grid; of one that is still being made the part that is complete, by the number of removed blocks.

        Raises:
            ValueError: a point of the space was never evaluated.
        """
        methods = Registry.discover().methods()
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        last = max(row["point"]["blocks"] for row in rows if row["point"])
        of_last = sum(row["point"] is not None and row["point"]["blocks"] == last for row in rows)
        blocks = last if of_last == POINTS_OF_A_STRUCTURE_SERIES else last - 1
        offers = []
        for name, ranges in {**RANGES, "block-removal": {"blocks": {"low": 1, "high": blocks}}}.items():
            varied = tuple(p for p in narrowed(methods[name].parameters, **ranges) if p.name in ranges)
            offers.append(OfferReply(method=name, version=methods[name].version, family=methods[name].family, parameters=varied))
        space = SearchSpace(offers, methods)
        candidates = {}
        for row in rows:
            if row["point"] and row["point"]["blocks"] > blocks:
                continue
            recipe = _recipe(row["point"], {name: method.version for name, method in methods.items()})
            candidates[recipe.identifier] = _candidate(recipe, row)
        if len(candidates) != space.size() + 1:
            raise ValueError(f"{path.name} must hold all {space.size() + 1} points, but has {len(candidates)}")
        return cls(space=space, candidates=candidates)


def _recipe(point: dict[str, Any] | None, versions: dict[str, int]) -> Recipe:
    """A point of `sampler_grid.py`, with the parameters that the grid varies."""
    chosen: dict[str, dict[str, Any]] = {}
    if point is not None:
        if point["blocks"]:
            chosen["block-removal"] = {"blocks": point["blocks"]}
        if point["ratio"]:
            chosen["channel-pruning"] = {"ratio": point["ratio"]}
        if point["epochs"]:
            chosen["distillation"] = {"epochs": point["epochs"]}
        if point["graph"]:
            chosen["graph-rewriting"] = {}
        if point["quantization"]:
            chosen["static-int8"] = dict(zip(("scheme", "form", "calibration"), point["quantization"], strict=True))
    return Recipe(steps=tuple(Step(method=name, version=versions[name], parameters=p) for name, p in chosen.items()))


def _candidate(recipe: Recipe, row: dict[str, Any]) -> CandidateResult:
    if row["quality"] is None or row["latency_ms"] is None:
        return CandidateResult(id=recipe.identifier, state="failed", recipe=[])
    latency = LatencyResult(
        evidence="simulated",
        device="qemu:cortex-a72",
        runtime="onnxruntime",
        threads=1,
        median_ms=row["latency_ms"],
        low_ms=row["latency_ms"],
        high_ms=row["latency_ms"],
    )
    quality = QualityResult(value=row["quality"], low=row["quality"], high=row["quality"], examples=2000)
    return CandidateResult(
        id=recipe.identifier,
        state="complete",
        recipe=[],
        artifact=ArtifactResult(path=None, digest=recipe.digest, size_bytes=row["size_bytes"], runtime="onnxruntime"),
        quality=SplitQuality(validation=quality),
        latency=[latency],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """Hypervolume over accuracy, log latency and log size, as a share of the whole grid's.

    Attributes:
        useful_drop: Share of the original's accuracy that a model may lose and still count; None: up to the grid's worst.
    """

    grid: Grid
    useful_drop: float | None
    worst: np.ndarray = field(init=False)
    whole: float = field(init=False)

    def __post_init__(self) -> None:
        points = np.array([found for c in self.grid.candidates.values() if (found := objectives(c)) is not None])
        worst = points.max(axis=0) + np.array([0.0, np.log(ENLARGED), np.log(ENLARGED)])
        if self.useful_drop is not None:
            quality = self.grid.candidates[BASELINE].quality
            assert quality is not None
            worst[0] = -quality.validation.value * (1 - self.useful_drop)
        object.__setattr__(self, "worst", worst)
        object.__setattr__(self, "whole", float(moocore.hypervolume(points, ref=worst)))

    def curve(self, identifiers: Sequence[str]) -> np.ndarray:
        """After each trial the share of the grid's hypervolume; the original is known before the first."""
        found = [objectives(self.grid.candidates[BASELINE])]
        shares = []
        for identifier in identifiers:
            if (point := objectives(self.grid.candidates[identifier])) is not None:
                found.append(point)
            shares.append(float(moocore.hypervolume(np.array(found), ref=self.worst)) / self.whole)
        return np.array(shares)


def objectives(candidate: CandidateResult) -> np.ndarray | None:
    """What is minimised: minus the accuracy, log latency, log size; None where it failed."""
    if candidate.quality is None or candidate.artifact is None:
        return None
    size, latency = float(candidate.artifact.size_bytes), candidate.latency[0].median_ms
    return np.array([-candidate.quality.validation.value, np.log(latency), np.log(size)])


class _Memory:
    """A run directory without files: what the archive of a search writes to."""

    def __init__(self, baseline: CandidateResult) -> None:
        self._baseline = baseline

    def read_candidates(self) -> dict[str, CandidateResult]:
        return {BASELINE: self._baseline}

    def write_candidate(self, candidate: CandidateResult) -> None:
        """The archive itself remembers it."""


def search(
    grid: Grid,
    sampler: Callable[[int], optuna.samplers.BaseSampler],
    *,
    seed: int,
    trials: int,
    starters: int | None,
    useful_drop: float | None,
) -> list[str]:
    """The recipes that a search of so many trials tries, in order.

    Args:
        starters: How many of the product's starting recipes come first; None: all, as in a search.
        useful_drop: See `SearchSettings`; None: the search has no constraint.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler(seed), directions=["maximize", "minimize", "minimize"])
    request: Any = SimpleNamespace(limits=Limits(), useful_drop=useful_drop)
    task: Any = SimpleNamespace(direction=Direction.MAXIMIZE, metric="accuracy")
    run: Any = _Memory(grid.candidates[BASELINE])
    archive = Archive(run, request, task)
    questions = Proposer(study, grid.space, archive, np.random.default_rng([seed, 1]))
    enqueue_first(study, [grid.space.parameters(recipe) for recipe in grid.space.starters(trials)[:starters]])
    order: list[str] = []
    while len(order) < trials and (asked := questions.ask({})) is not None:
        trial, recipe = asked
        candidate = archive.keep(grid.candidates[recipe.identifier])
        questions.tell(PendingCandidate(recipe=recipe, trial=trial, timeout_s=1.0), candidate)
        order.append(candidate.id)
    return order
