"""The quality criterion: both models on the same examples."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from orchestrator.api.check.settings import UsualDrop
from orchestrator.api.measure import Bench
from orchestrator.building.data import DEFAULT_INPUT, Split, load_data
from orchestrator.building.references import absolute
from orchestrator.errors import InputError, MethodError
from orchestrator.measuring.paired_tests import CONFIDENCE, LEAST_EXAMPLES, PairedDrop, paired_drop
from orchestrator.measuring.sequential_test import drop_judged
from orchestrator.plugin.metric import Metric
from orchestrator.report import formatting
from orchestrator.values.check import Criterion

CANDIDATE, BASELINE = 0, 1
LEAST_DIFFERENCE = 1e-12  # rounding errors
NO_DATA = "no data: give --data to have the quality judged"


def splits_of(data: str, said_by: str | None) -> dict[str, Split]:
    """Load the splits of a data reference.

    Args:
        data: The reference.
        said_by: The recipe that contains it, if the user did not give it.

    Raises:
        InputError: They cannot be loaded.
    """
    try:
        return load_data(absolute(data))
    except InputError as error:
        if said_by is None:
            raise
        raise InputError(f"the data that {said_by} names cannot be used here ({error}): give --data") from None


def judging_split(splits: Mapping[str, Split]) -> Split:
    """Return the test split, which nothing was chosen by, or the validation split if there is none or it lacks labels."""
    test, validation = splits.get("test"), splits["validation"].arrays()
    if test is None:
        return validation
    test = test.arrays()
    return validation if test.labels is None and validation.labels is not None else test


def judge_quality(bench: Bench, split: Split, metric: Metric, limit: float, folder: Path) -> Criterion:
    """Score both models on a split and judge the difference.

    Args:
        bench: The models.
        split: The examples.
        metric: The metric.
        limit: Allowed loss in points of the metric.
        folder: An empty folder to work in.

    Raises:
        InputError: A model cannot be run, the baseline's outputs are not finite, or the metric does not fit them.
    """
    if formatting.is_rate(metric.name) and limit >= 1:
        raise InputError(f"a drop of {limit * 100:.0f} points of {metric.name} is all there is: write --max-drop {limit:g}%")
    arrays = split.inputs or {}
    if set(arrays) == {DEFAULT_INPUT}:
        arrays = {bench.names[0]: arrays[DEFAULT_INPUT]}
    inputs = {name: folder / f"input{k}.npy" for k, name in enumerate(bench.names)}
    for name, file in inputs.items():
        np.save(file, arrays[name])
    candidate, baseline = (bench.outputs(k, inputs, folder / str(k)) for k in (CANDIDATE, BASELINE))
    where = f"{split.count} examples of the {split.name} split"
    if not _finite(baseline):
        raise InputError(f"the outputs of the baseline '{bench.paths[BASELINE]}' hold NaN or infinity on {where}")
    details = {"metric": metric.name, "direction": metric.direction, "split": split.name, "examples": split.count}
    if not _finite(candidate):
        reason = f"the candidate's outputs hold NaN or infinity on {where}, and the baseline's do not"
        return Criterion(name="quality", verdict="regressed", reason=reason, unit=metric.name, limit=limit, details=details)
    _fit(metric, split, baseline, candidate)
    try:
        found = paired_drop(metric, candidate, baseline, split.labels)
    except MethodError as error:
        raise InputError(f"{error} on {where}") from None
    return _criterion(metric, found, limit, where, details)


def _finite(outputs: list[np.ndarray]) -> bool:
    return all(np.isfinite(output).all() for output in outputs if output.dtype.kind == "f")


def _fit(metric: Metric, split: Split, *sides: list[np.ndarray]) -> None:
    """Raise InputError if the labels are not classes of the model: they would give a meaningless accuracy."""
    labels = split.labels
    if metric.name != "accuracy" or labels is None:
        return
    for side in sides:
        shape = side[0].shape
        classes = 0 if len(shape) < 2 else shape[1 if len(shape) > 3 else -1]
        if labels.dtype.kind not in "iu" or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(
                f"accuracy needs labels from 0 to {classes - 1}, one for each of the model's {classes} outputs, but the "
                f"{split.name} split has others: give --metric mse, --metric fidelity or --metric file.py:function"
            )


def _criterion(metric: Metric, found: PairedDrop, limit: float, where: str, details: dict[str, object]) -> Criterion:
    rate = formatting.is_rate(metric.name)
    if isinstance(limit, UsualDrop) and not rate:
        limit = float(limit) * abs(found.baseline)
    verdict = drop_judged(found, limit)

    def points(value: float) -> str:
        return f"{value * 100:.3g}" if rate else f"{value:.4g}"

    unit = " points" if rate else ""
    gone = f"{points(abs(found.drop))}{unit} {'lost' if found.drop > 0 else 'gained'}"
    if abs(found.drop) < LEAST_DIFFERENCE:
        gone = "no difference"
    interval = f"a loss of {points(found.low)} to {points(found.high)}{unit}, {CONFIDENCE * 100:.3g} % interval"
    few = not math.isfinite(found.high)
    if few:
        interval = f"no interval: fewer than {LEAST_EXAMPLES} examples"
    counted = "" if found.lost is None else f"; {found.lost} examples lost, {found.gained} gained"
    allowed = f"{points(limit)}{unit}"
    warning = None
    if verdict == "regressed":
        judgement = f"more than the {allowed} allowed"
    elif found.high <= limit:
        judgement = f"within the {allowed} allowed"
    else:
        judgement = f"no significant loss beyond the {allowed} allowed"
        largest = "any loss" if few else f"a loss of up to {points(found.high)}{unit}"
        warning = f"{where} cannot rule out {largest}; more examples would tell"
    chosen = {k: v for k, v in asdict(found).items() if k in ("test", "p_value", "lost", "gained") and v is not None}
    return Criterion(
        name="quality",
        verdict=verdict,
        reason=f"{gone} on {where} ({interval}{counted}; {found.test}, p = {found.p_value:.2g}): {judgement}",
        unit=metric.name,
        limit=limit,
        baseline=found.baseline,
        candidate=found.candidate,
        change=found.drop,
        low=None if few else found.low,
        high=None if few else found.high,
        confidence=CONFIDENCE,
        warning=warning,
        details={**details, **chosen},
    )
