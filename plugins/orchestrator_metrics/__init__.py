"""The built-in quality metrics."""

from orchestrator.plugin import Metric, hookimpl
from orchestrator_metrics.classification import Accuracy, Agreement
from orchestrator_metrics.fidelity import Fidelity
from orchestrator_metrics.regression import MeanSquaredError


@hookimpl
def orchestrator_metrics() -> list[Metric]:
    """Return accuracy, agreement, fidelity and mse."""
    return [Accuracy(), Agreement(), Fidelity(), MeanSquaredError()]
