"""Look-up of the quality metric, for searches and checks."""

import numpy as np

from orchestrator.building.references import absolute, load_function
from orchestrator.errors import InputError, PluginError, unknown
from orchestrator.measuring.quality import FunctionMetric
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.registry import Registry

NOT_CLASSES = (
    "metric 'accuracy' needs whole-number labels, one for each logit vector of the model; "
    "for other labels give --metric mse, --metric fidelity or --metric file.py:function"
)


def find_metric(name: str | None, labels: np.ndarray | None, registry: Registry, split: str) -> Metric:
    """Return a metric by name or `file.py:function`; by default accuracy, without labels fidelity.

    Args:
        name: The name, or None for the default.
        labels: Labels of the scored split, or None.
        registry: The plugins.
        split: Name of the scored split, for messages.

    Raises:
        PluginError: The name is unknown.
        InputError: Labels that the metric needs are missing, or are not class indices.
    """
    if name is None:
        name = "fidelity" if labels is None else "accuracy"
        if labels is not None and labels.dtype.kind not in "iu":
            raise InputError(NOT_CLASSES)
    if ":" in name:
        return FunctionMetric(name.rpartition(":")[2], load_function(absolute(name), "--metric"))
    metrics = registry.metrics()
    if name not in metrics:
        broken = "".join(f"; plugin '{p.name}' could not be used: {p.error}" for p in registry.failed)
        raise PluginError(unknown("metric", name, metrics) + f"; or give file.py:function{broken}")
    if metrics[name].needs_labels and labels is None:
        raise InputError(f"metric '{name}' needs labels, and the {split} split has none; try --metric fidelity")
    return metrics[name]
