"""Quantization: methods that turn a float ONNX file into an INT8 one for onnxruntime."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_quantization.dynamic_int8 import DynamicInt8
from orchestrator_quantization.static_int8 import StaticInt8


@hookimpl
def orchestrator_methods() -> list[Method]:
    """The methods of this package."""
    return [StaticInt8(), DynamicInt8()]
