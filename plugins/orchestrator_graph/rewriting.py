"""Equivalent operators that the runtime executes faster (Jia et al. 2019, "TASO: Optimizing Deep Learning Computation")."""

from pathlib import Path
from typing import Any

from orchestrator.errors import one_line
from orchestrator.plugin import BuildContext, MethodError, OnnxMethod, Parameters, ParameterValues, Refused

TOLERANCE = 1e-4


class GraphRewriting(OnnxMethod):
    """Rewrites data movement between convolutions into equivalent convolutions and poolings (cf. Jia et al. 2019).

    Runtimes keep convolutions in a layout of their own (blocks of channels, channels last); a strided slice or a padding of
    channels between them, as in the shortcuts of residual networks (He et al. 2015, option A), makes them convert to the plain
    layout and, in INT8, to float. A 1x1 convolution with constant weights stays in the layout and in INT8.
    """

    name = "graph-rewriting"
    version = 1
    family = "graph"
    reads = frozenset[str]()
    summary = "Replaces slices, channel padding and means by equal convolutions and poolings (cf. Jia et al. 2019, TASO)."
    after = frozenset({"morphology", "pruning", "distillation"})
    before = frozenset({"quantization"})

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_graph.rules import rewrite

        if not rewrite(_load(model)):
            raise Refused(f"{self.name}: the graph has no slice, padding or mean between convolutions that could be rewritten")
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return "the graph rewritten"

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        import onnx

        from orchestrator_graph.rules import rewrite

        graph = _load(model)
        if not rewrite(graph):
            raise MethodError(f"{self.name}: this network has nothing to rewrite")
        path = context.workspace / f"{self.name}.onnx"
        context.workspace.mkdir(parents=True, exist_ok=True)
        onnx.save(graph, str(path))
        _check_equal(model, path, context)
        return path


def _load(path: Path) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    except Exception as error:  # protobuf's and the checker's own errors
        raise MethodError(f"graph-rewriting: {path.name} cannot be read as ONNX: {one_line(error)}") from error


def _check_equal(before: Path, after: Path, context: BuildContext) -> None:
    """Check that both files compute the same outputs on the example, up to rounding.

    Raises:
        MethodError: They do not.
    """
    import numpy as np

    from orchestrator.plugin.onnx_graph import example_outputs

    results = []
    for path in (before, after):
        try:
            results.append(example_outputs(path, context))
        except Exception as error:  # onnxruntime's errors have no common root
            raise MethodError(f"graph-rewriting: onnxruntime does not run {path.name}: {one_line(error)}") from error
    for first, second in zip(*results, strict=True):
        if first.shape != second.shape or not np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * abs(first).max()):
            raise MethodError("graph-rewriting: the outputs of the rewritten network differ from those of the original")
