"""onnxruntime: runs ONNX files; an execution provider is its option."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.plugin import Refused, Runtime

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


class OnnxRuntime(Runtime):
    """onnxruntime, on the CPU unless the options name `providers`."""

    name = "onnxruntime"
    in_calling_thread = True
    suffix = ".onnx"
    imports = ("onnxruntime",)

    def version(self) -> str:
        """Return the version of the installed distribution."""
        for distribution in DISTRIBUTIONS:
            try:
                return version(distribution)
            except PackageNotFoundError:
                continue
        raise Refused("onnxruntime is not installed: pip install onnxruntime")

    @staticmethod
    def load(path: str, threads: int, options: Mapping[str, Any]) -> Callable[[dict[str, Any]], list[Any]]:
        """Load a model and return the function that runs it."""
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # Two sessions whose threads spin on the same cores slow each other several-fold: blocks of two models alternate here.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = str(options.get("providers", "CPUExecutionProvider")).split(",")
        for key, value in options.items():
            if key != "providers":
                settings.add_session_config_entry(key, str(value))
        missing = set(providers) - set(onnxruntime.get_available_providers())
        if missing:
            raise RuntimeError(f"this onnxruntime has no {', '.join(sorted(missing))}")
        session = onnxruntime.InferenceSession(path, settings, providers=providers)

        def run(inputs: dict[str, Any]) -> list[Any]:
            outputs: list[Any] = session.run(None, inputs)
            return outputs

        return run
