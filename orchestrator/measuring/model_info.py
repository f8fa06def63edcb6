"""What is known of an exported model from its file alone.

Runs in the build worker: a file that crashes a parser is no end of a search.
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
    """What is counted and computed from the file.

    Attributes:
        path: The file that the runtime loads.
        digest: SHA-256 of it.
        compressed_bytes: Its size after zlib, level 6.
        macs: Of one inference.
        estimate: The target's latency from the graph and the profile; None where the profile has no latency model, and the target
            is measured or simulated.
        batch: Examples that one inference may take while scoring.
        runtime: What runs it; None: the target's first.
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
    """The same model, run by another runtime than the target's first: the estimate is that one's, and says nothing of this."""
    return model if runtime is None else replace(model, runtime=runtime, estimate=None)


def inspect(graph: Path, file: Path, target: Target, shapes: dict[str, tuple[int, ...]]) -> ModelInfo:
    """Look at a model.

    Args:
        graph: The exported ONNX file.
        file: What the runtime loads: the same, or its own form of it.
        shapes: `{input name: shape with a batch of 1}`, for dynamic axes.

    Raises:
        InputError: the graph cannot be read, or its latency not be estimated.
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
        if target.is_device or target.simulator is not None:  # it would only stand beside a better figure
            return None
        raise


def scoring_batch(path: Path) -> int:
    """How many examples one inference may take while scoring.

    One where the file fixes its batch axis, and where activations are quantized by their range of the moment: that range is over
    the whole batch, so a larger one would score another computation than the one that is shipped.
    """
    graph = onnx.load(path, load_external_data=False).graph
    if any(node.op_type == "DynamicQuantizeLinear" for node in graph.node):
        return 1
    weights = {tensor.name for tensor in graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in weights]
    return SCORING_BATCH if all(shape and not shape[0].HasField("dim_value") for shape in shapes) else 1
