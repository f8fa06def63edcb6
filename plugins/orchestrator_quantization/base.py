"""Common declarations of the quantization methods."""

from orchestrator.plugin import OnnxMethod, Refused, Target

FAMILY = "quantization"
AFTER = frozenset({"pruning", "morphology", "distillation", "graph"})


class QuantizationMethod(OnnxMethod):
    """Base of the methods of the family "quantization" on ONNX files."""

    family = FAMILY
    after = AFTER


def require_onnxruntime(target: Target, method: str) -> None:
    """Check that the target's runtime has onnxruntime's own operators.

    Raises:
        Refused: It is another runtime.
    """
    if target.runtime != "onnxruntime":
        raise Refused(f"{method}: its operators run in onnxruntime only, but the target's runtime is {target.runtime}")
