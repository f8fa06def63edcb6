"""Quality of outputs with its interval, and the paired difference to the baseline on the same examples."""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from orchestrator.errors import InputError, MethodError
from orchestrator.measuring import statistics
from orchestrator.plugin.metric import Metric
from orchestrator.values.direction import Direction
from orchestrator.values.results import Difference, QualityResult

RESAMPLES_OF_A_FUNCTION = 200
LEAST_RESAMPLES = 20
RESAMPLING_S = 20.0

Outputs = Sequence[np.ndarray]


class FunctionMetric(Metric):
    """A user's `f(outputs, labels)` or `f(outputs, labels, reference)` as a metric.

    `outputs` is one array if the model has one output, else a list of them. The function returns one score for each example or
    a
    single number. Its attribute `direction = "minimize"` means that less is better.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name  # type: ignore[misc]
        self._function = function
        direction: Any = getattr(function, "direction", "maximize")
        if direction not in tuple(Direction):
            raise InputError(f"--metric {name}: direction must be 'maximize' or 'minimize', but got {direction!r}")
        self.direction = direction  # type: ignore[misc]
        self.needs_labels = False  # type: ignore[misc]
        self._arguments = required_arguments(function)
        if self._arguments not in (2, 3):
            raise InputError(f"--metric {name} must take (outputs, labels) or (outputs, labels, reference)")
        self.needs_reference = self._arguments == 3  # type: ignore[misc]

    def score(self, outputs: Outputs, labels: np.ndarray | None, reference: Outputs | None) -> np.ndarray:
        """Call the function; its errors become InputError."""
        arguments = (_alone(outputs), labels, None if reference is None else _alone(reference))[: self._arguments]
        try:
            return np.asarray(self._function(*arguments), dtype=np.float64)
        except Exception as error:  # the user's code
            text = (str(error).strip().splitlines() or ["(no message)"])[0]
            raise InputError(f"--metric {self.name} raised {type(error).__name__}: {text}") from error


def required_arguments(function: Callable[..., Any]) -> int:
    """Return the number of required arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)


def _alone(outputs: Outputs) -> Any:
    return outputs[0] if len(outputs) == 1 else list(outputs)


def evaluate(metric: Metric, outputs: Outputs, labels: np.ndarray | None, baseline: Outputs | None) -> QualityResult:
    """Compute the metric on outputs, with its interval.

    Args:
        metric: The metric.
        outputs: For each output of the model an array, first axis the N examples.
        labels: First axis the N examples, or None.
        baseline: The original's outputs on the same examples; None if `outputs` are the original's.

    Raises:
        MethodError: The outputs are not finite.
    """
    for k, output in enumerate(outputs):
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            raise MethodError(f"output {k} of the exported model holds NaN or infinity")
    reference = outputs if baseline is None else baseline
    scores = _scores(metric, outputs, labels, reference)
    count = len(outputs[0])
    if scores.ndim == 0:
        return _of_a_function(metric, outputs, labels, baseline, float(scores))
    low, high = statistics.mean_interval(scores)
    difference = None
    if baseline is not None:
        original = _scores(metric, baseline, labels, baseline)
        ends = statistics.mean_difference_interval(scores, original)
        difference = Difference(value=float((scores - original).mean()), low=ends[0], high=ends[1])
    return QualityResult(value=float(scores.mean()), low=low, high=high, examples=count, difference=difference)


def score(metric: Metric, outputs: Outputs, labels: np.ndarray | None, reference: Outputs | None) -> float:
    """Compute the metric's value alone, without an interval. Arguments and errors as in `evaluate`."""
    return float(_scores(metric, outputs, labels, outputs if reference is None else reference).mean())


def _scores(metric: Metric, outputs: Outputs, labels: np.ndarray | None, reference: Outputs) -> np.ndarray:
    scores = np.asarray(metric.score(outputs, labels, reference if metric.needs_reference else None), dtype=np.float64)
    if scores.ndim > 1 or (scores.ndim == 1 and len(scores) != len(outputs[0])):
        raise InputError(
            f"metric {metric.name} must return one score for each of {len(outputs[0])} examples or a single number, "
            f"but got shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise MethodError(f"metric {metric.name} gave NaN or infinity")
    return scores


def _of_a_function(
    metric: Metric, outputs: Outputs, labels: np.ndarray | None, baseline: Outputs | None, value: float
) -> QualityResult:
    """Return the intervals of a metric that is not a mean over examples, from resampled examples."""
    count = len(outputs[0])
    random = np.random.default_rng(statistics.SEED)
    values: list[float] = []
    originals: list[float] = []
    end = time.monotonic() + RESAMPLING_S
    for _ in range(RESAMPLES_OF_A_FUNCTION):
        if len(values) >= LEAST_RESAMPLES and time.monotonic() > end:
            break
        drawn = random.integers(0, count, count)
        part = [output[drawn] for output in outputs]
        reference = part if baseline is None else [output[drawn] for output in baseline]
        kept = None if labels is None else labels[drawn]
        try:
            own = float(_scores(metric, part, kept, reference))
            other = float(_scores(metric, reference, kept, reference)) if baseline is not None else 0.0
        except (InputError, MethodError):
            continue  # a resample may lack a class, so that the metric is undefined
        values.append(own)
        originals.append(other)
    if len(values) < LEAST_RESAMPLES:
        raise InputError(f"metric {metric.name} fails on resampled examples, so its interval cannot be given")
    low, high = statistics.resampled_interval(np.array(values))
    difference = None
    if baseline is not None:
        ends = statistics.resampled_interval(np.array(values) - np.array(originals))
        original = float(_scores(metric, baseline, labels, baseline))
        difference = Difference(value=value - original, low=ends[0], high=ends[1])
    return QualityResult(value=value, low=low, high=high, examples=count, difference=difference)
