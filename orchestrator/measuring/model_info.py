"""Properties of an exported model that follow from its file.

Computed in the builder process: a file that crashes a parser does not end the search.
"""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from orchestrator.errors import InputError
from orchestrator.hardware.estimate import estimate_latency
from orchestrator.hardware.graph import count
from orchestrator.values.evidence import Estimate
from orchestrator.values.target import Target

SCORING_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Counted and computed properties of a model file.

    Attributes:
        path: The file that the runtime loads.
        digest: Its SHA-256.
        compressed_bytes: Its size after zlib, level 6.
        macs: Multiply-accumulates of one inference.
        estimate: The target's latency from the graph and the profile; None if the profile has no latency model and the target
            is measured or simulated.
        batch: Largest number of examples of one inference while scoring.
        runtime: The runtime that executes it, or None for the target's first.
    """

    path: str
    digest: str
    size_bytes: int
    compressed_bytes: int
    macs: int
    parameters: int
    estimate: Estimate | None
    batch: int
    runtime: str | None = None


def for_runtime(model: ModelInfo, runtime: str | None) -> ModelInfo:
    """Return the model's properties for another runtime than the target's first, without the estimate, which is for that one."""
    return model if runtime is None else replace(model, runtime=runtime, estimate=None)


def inspect(graph: Path, file: Path, target: Target, shapes: dict[str, tuple[int, ...]]) -> ModelInfo:
    """Return the properties of a model.

    Args:
        graph: The exported ONNX file.
        file: The file that the runtime loads: the same, or its own form of it.
        target: The target.
        shapes: `{input name: shape with a batch of 1}`, for dynamic axes.

    Raises:
        InputError: The graph cannot be read, or its latency cannot be estimated.
    """
    counted = count(graph, shapes)
    content = file.read_bytes()
    return ModelInfo(
        path=str(file),
        digest=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        compressed_bytes=len(zlib.compress(content, 6)),
        macs=counted.macs,
        parameters=counted.parameters,
        estimate=_estimate(graph, target, shapes),
        batch=scoring_batch(graph),
    )


def _estimate(graph: Path, target: Target, shapes: dict[str, tuple[int, ...]]) -> Estimate | None:
    try:
        return estimate_latency(graph, target.profile, target.runtime, target.threads, shapes)
    except InputError:
        if target.is_device or target.simulator is not None:  # a stronger value exists
            return None
        raise


def scoring_batch(path: Path) -> int:
    """Return the largest number of examples of one inference while scoring.

    It is 1 if the file fixes its batch axis, and if activations are quantized dynamically: their range is that of the whole
    batch, so that a larger batch would score another computation than the shipped one.
    """
    graph = onnx.load(path, load_external_data=False).graph
    if any(node.op_type == "DynamicQuantizeLinear" for node in graph.node):
        return 1
    weights = {tensor.name for tensor in graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in weights]
    return SCORING_BATCH if all(shape and not shape[0].HasField("dim_value") for shape in shapes) else 1
