"""Static INT8 quantization of a float file, for the methods that end in it. onnx and onnxruntime are imported on use."""

import hashlib
import tempfile
from functools import partial
from pathlib import Path

from orchestrator.plugin import BuildContext, MethodError
from orchestrator_quantization.layers import first_convolutions, weighted_layers, with_activations
from orchestrator_quantization.model_files import load_model, prepare, quantizer_errors, validate
from orchestrator_quantization.quantizer import CalibrationBatches, Quantizer, QuantizerSettings


def quantize(model: Path, settings: QuantizerSettings, context: BuildContext, method: str) -> Path:
    """Write the quantized file `context.workspace / "METHOD.onnx"` and return its path; the file at `model` does not change.

    Raises:
        MethodError: The network cannot be quantized, with the reason.
    """
    import onnx

    from orchestrator.plugin.onnx_graph import OnnxGraph
    from orchestrator_quantization.bias import correct
    from orchestrator_quantization.equalisation import equalise

    ready = prepare(model, context, method)
    graph = OnnxGraph(load_model(ready, method))
    batches = CalibrationBatches(graph.model, settings.examples, context, method)
    output = context.workspace / f"{method}.onnx"
    with quantizer_errors(method), tempfile.TemporaryDirectory(dir=context.workspace) as scratch:
        if settings.equalisation and equalise(graph):
            onnx.save(graph.model, str(ready))
        quantizer = Quantizer(ready, graph, settings, batches, Path(scratch))
        digest = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
        floating = _float_nodes(quantizer, settings, context, method, digest)
        if settings.bias_correction:
            correct(graph, quantizer.write(form="qdq", floating=floating), batches)
        quantizer.write(form=settings.form, floating=floating, path=output)
    ready.unlink()
    return validate(output, context, method)


def _float_nodes(quantizer: Quantizer, settings: QuantizerSettings, context: BuildContext, method: str, digest: str) -> set[str]:
    """Return the names of the nodes that stay in float."""
    from orchestrator_quantization.sensitivity import sensitivities

    graph = quantizer.graph
    chosen = {node.name for node in first_convolutions(graph)} if settings.first_float else set()
    layers = [node.name for node in weighted_layers(graph)]
    others = [name for name in layers if name not in chosen]
    if not others:
        raise MethodError(f"{method}: all {len(layers)} layers with weights would stay in float")
    if settings.float_layers >= len(others):
        raise MethodError(
            f"{method}: float_layers < {len(others)} must hold, the number of layers with weights in INT8, "
            f"but got float_layers={settings.float_layers}"
        )
    if settings.float_layers:
        table = context.remember(f"sensitivity {settings.key} {digest}", partial(sensitivities, quantizer, layers))
        # The stable sort keeps the order of computation among equals.
        chosen |= set(sorted(others, key=lambda name: -float(table[name]))[: settings.float_layers])
    return with_activations(graph, chosen)
