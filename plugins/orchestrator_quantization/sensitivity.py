"""Sensitivity of a network's outputs to each layer in INT8. Imports onnxruntime; imported on use.

The purpose is that of Dong et al. 2019, "HAWQ", with the distance of the outputs in place of its second-order estimate: a pass
over some examples costs less than the estimate.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from orchestrator.plugin.onnx_graph import Array, cpu_session
from orchestrator_quantization.quantizer import Quantizer

EXAMPLES = 64
"""Calibration examples that the outputs are compared on."""


def sensitivities(quantizer: Quantizer, layers: Sequence[str]) -> dict[str, float]:
    """Return `{layer: distance}` between the float outputs and those with that layer alone in INT8 (0: equal).

    Args:
        quantizer: Quantizer of the network.
        layers: Names of nodes with weights.
    """
    batches: list[dict[str, Array]] = []
    for batch in quantizer.batches:
        if sum(len(next(iter(b.values()))) for b in batches) < EXAMPLES:
            batches.append(batch)
    expected = _outputs(quantizer.ready, batches)
    return {name: distance(expected, _outputs(quantizer.write(form="qdq", only=[name]), batches)) for name in layers}


def _outputs(path: Path, batches: Iterable[dict[str, Array]]) -> list[Array]:
    """Return the floating-point outputs of a file for all batches, one array for each output, first axis the examples."""
    # Computed in float, by no integer kernel: sums that saturate on this machine need not do so on the target.
    session = cpu_session(path, optimise=False)
    results = [session.run(None, batch) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*results, strict=True) if np.issubdtype(parts[0].dtype, np.floating)]


def distance(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Return the squared distance divided by the squared norm of `first`, averaged over the arrays."""
    shares = [
        float(np.square(b.astype(np.float64) - a).sum() / max(np.square(a.astype(np.float64)).sum(), 1e-12))
        for a, b in zip(first, second, strict=True)
    ]
    return sum(shares) / max(len(shares), 1)
