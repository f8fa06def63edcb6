"""Equivalent operators that the runtime runs faster: Jia et al. 2019, "TASO: Optimizing Deep Learning Computation"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.plugin import BuildContext, MethodError, OnnxMethod, Parameter, ParameterValue, Refused

TOLERANCE = 1e-4


class GraphRewriting(OnnxMethod):
    """Rewrites data movement between convolutions as convolutions and poolings, which compute the same.

    Runtimes keep convolutions in a layout of their own (blocks of channels, channels last); a strided slice or a padding of
    channels between them, as in the shortcuts of residual networks (He et al. 2015, option A), makes them go back to the plain
    layout and, in INT8, to float. As a 1x1 convolution with constant weights it stays in the layout and in INT8.
    """

    name = "graph-rewriting"
    version = 1
    family = "graph"
    reads = frozenset[str]()
    summary = "Replaces slices, channel padding and means by equal convolutions and poolings (cf. Jia et al. 2019, TASO)."
    after = frozenset({"morphology", "pruning", "distillation"})
    before = frozenset({"quantization"})

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_graph.rewrites import rewrite

        if not rewrite(_read(model)):
            raise Refused(f"{self.name}: the graph holds no slice, padding or mean between convolutions that could be rewritten")
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return "the graph rewritten"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        import onnx

        from orchestrator_graph.rewrites import rewrite

        graph = _read(model)
        if not rewrite(graph):
            raise MethodError(f"{self.name}: nothing is left in this network to be rewritten")
        path = context.workspace / f"{self.name}.onnx"
        context.workspace.mkdir(parents=True, exist_ok=True)
        onnx.save(graph, str(path))
        _check_equal(model, path, context)
        return path


def _read(path: Path) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    except Exception as error:  # protobuf's and the checker's own errors
        raise MethodError(f"graph-rewriting: {path.name} cannot be read as ONNX: {error}") from error


def _check_equal(before: Path, after: Path, context: BuildContext) -> None:
    """Raise unless both files give the same outputs on the example, up to rounding."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    results = []
    for path in (before, after):
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            inputs = session.get_inputs()
            fixed = next((i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], int)), None)
            results.append(session.run(None, {i.name: context.example[i.name].numpy()[:fixed] for i in inputs}))
        except Exception as error:  # onnxruntime's errors have no common root
            raise MethodError(f"graph-rewriting: onnxruntime does not run {path.name}: {str(error)[:200]}") from error
    for first, second in zip(*results, strict=True):
        if first.shape != second.shape or not np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * abs(first).max()):
            raise MethodError("graph-rewriting: the rewritten network does not compute the same")
