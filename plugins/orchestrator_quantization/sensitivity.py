"""How much the network's outputs move when one layer alone is INT8: what layers to leave in float is measured, not guessed.

The measure of Dong et al. 2019, "HAWQ", with the outputs themselves in place of its second-order estimate: a pass over some
examples costs less than the estimate does. Loads onnxruntime: imported where a file is at hand.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from orchestrator_quantization.graph import Array
from orchestrator_quantization.static import CalibrationBatches, Quantizer

EXAMPLES = 64
"""Calibration examples that the outputs are compared on."""


def sensitivities(quantizer: Quantizer, layers: Sequence[str], batches: CalibrationBatches) -> dict[str, float]:
    """`{layer: distance}`: of the outputs with that layer alone in INT8 to the float outputs (0: not at all).

    The distance is the squared distance over the squared length, averaged over all floating outputs.

    Args:
        layers: Names of nodes that hold weights.
    """
    chosen, held = [], 0
    for batch in batches:
        if held < EXAMPLES:
            chosen.append(batch)
            held += len(next(iter(batch.values())))
    expected = outputs(quantizer.ready, chosen)
    return {name: distance(expected, outputs(quantizer.write(form="qdq", only=[name]), chosen)) for name in layers}


def outputs(path: Path, batches: Iterable[dict[str, Array]]) -> list[Array]:
    """The floating outputs of a file for all batches, one array for each output, first axis the examples."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Fake quantization in float, no integer kernel: what saturates on this machine need not on the target.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, batch) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*found, strict=True) if np.issubdtype(parts[0].dtype, np.floating)]


def distance(first: Sequence[Array], second: Sequence[Array]) -> float:
    """The squared distance over the squared length of `first`, averaged over the arrays."""
    shares = [
        float(np.square(b.astype(np.float64) - a).sum() / max(np.square(a.astype(np.float64)).sum(), 1e-12))
        for a, b in zip(first, second, strict=True)
    ]
    return sum(shares) / max(len(shares), 1)
