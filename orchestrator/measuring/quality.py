"""Quality of outputs with its interval, and the paired difference to the baseline on the same examples."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.errors import InputError, MethodError
from orchestrator.measuring import statistics
from orchestrator.measuring.paired_tests import Outputs, paired_drop, resampled_scores, scores
from orchestrator.plugin.metric import Metric
from orchestrator.values.direction import Direction
from orchestrator.values.results import Difference, QualityResult


class FunctionMetric(Metric):
    """A user's `f(outputs, labels)` or `f(outputs, labels, reference)` as a metric.

    `outputs` is one array if the model has one output, else a list of them. The function returns one score for each example
    or a single number. Its attribute `direction = "minimize"` means that less is better.
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
    own = scores(metric, outputs, labels, reference)
    if own.ndim == 0:
        resampled = resampled_scores(metric, outputs, reference, labels)
        low, high = statistics.resampled_interval(resampled[np.isfinite(resampled)])
    else:
        low, high = statistics.mean_interval(own)
    difference = None if baseline is None else _difference(metric, outputs, baseline, labels)
    return QualityResult(value=float(own.mean()), low=low, high=high, examples=len(outputs[0]), difference=difference)


def score(metric: Metric, outputs: Outputs, labels: np.ndarray | None, reference: Outputs | None) -> float:
    """Compute the metric's value alone, without an interval. Arguments and errors as in `evaluate`."""
    return float(scores(metric, outputs, labels, outputs if reference is None else reference).mean())


def _difference(metric: Metric, outputs: Outputs, baseline: Outputs, labels: np.ndarray | None) -> Difference:
    """Return candidate minus baseline with the interval of the paired test, the same as in a check."""
    drop = paired_drop(metric, outputs, baseline, labels, confidence=statistics.CONFIDENCE)
    low, high = (drop.low, drop.high) if np.isfinite([drop.low, drop.high]).all() else drop.extremes or (drop.drop, drop.drop)
    ends = sorted(-Direction(metric.direction).sign * end for end in (low, high))
    return Difference(value=drop.candidate - drop.baseline, low=ends[0], high=ends[1])
