"""The built-in runtimes."""

from orchestrator.plugin import Runtime, hookimpl
from orchestrator_runtimes.onnxruntime import OnnxRuntime


@hookimpl
def orchestrator_runtimes() -> list[Runtime]:
    """Return onnxruntime."""
    return [OnnxRuntime()]
