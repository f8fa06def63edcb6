"""ONNX files of a quantization method: loading, preparation and validation.

onnx and onnxruntime are imported on use.
"""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import one_line
from orchestrator.plugin import BuildContext, MethodError

if TYPE_CHECKING:
    from orchestrator.plugin.onnx_graph import OnnxGraph

OPSET = 13
"""The oldest operator set with scales per channel in QuantizeLinear."""

LARGEST_BYTES = 2**31 - 1
"""Largest size of a protobuf message, and so of an ONNX file without external data."""


def weight_elements(model: Any) -> dict[str, int]:
    """Return the constant elements that each type of operator multiplies by: `{type (Conv, Gemm, MatMul, LSTM, ...): elements}`.

    A constant is an initializer or a Constant node, also behind Transpose and Identity.
    """
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    elements: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Constant":
            sizes[node.output[0]] = sum(math.prod(a.t.dims) for a in node.attribute if a.name == "value")
        elif node.op_type in ("Transpose", "Identity") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Attention"):
            count = sum(sizes.get(name, 0) for name in list(node.input)[1:3])
            elements[node.op_type] = elements.get(node.op_type, 0) + count
    return elements


def load_model(path: Path, method: str) -> Any:
    """Return the model with its external data.

    Raises:
        MethodError: The file is no ONNX file, or too large for onnxruntime's quantizers.
    """
    import onnx

    _check_size(sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists()), path, method)
    try:
        model = onnx.load(str(path))
        size = model.ByteSize()
    except Exception as error:  # protobuf's and the file system's own errors
        raise MethodError(f"{method}: {path.name} cannot be read as ONNX: {one_line(error)}") from error
    _check_size(size, path, method)
    return model


def _check_size(size: int, path: Path, method: str) -> None:
    if size > LARGEST_BYTES:
        raise MethodError(f"{method}: {path.name} has {size} bytes, but quantization takes at most {LARGEST_BYTES}")


def prepare(path: Path, context: BuildContext, method: str) -> Path:
    """Write a float file that onnxruntime's quantizers take into the workspace; return its path.

    Its operator set has scales per channel, batch norms are folded into convolutions, constants are initializers, and shapes are
    inferred again: those of exporters are sometimes wrong, which stops the quantizer.

    Raises:
        MethodError: The file cannot be prepared.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_infer_metadata, add_pre_process_metadata

    model = load_model(path, method)
    context.workspace.mkdir(parents=True, exist_ok=True)
    plain, folded, ready = (context.workspace / f"{stage}.onnx" for stage in ("plain", "folded", "ready"))
    try:
        if next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET) < OPSET:
            model = onnx.version_converter.convert_version(model, OPSET)
        del model.graph.value_info[:]
        onnx.save(model, str(plain))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(folded)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(folded))
        del model.graph.value_info[:]
        _set_unique_names(model)
        model = onnx.shape_inference.infer_shapes(model)
        add_infer_metadata(model)  # or quantizers repeat these steps
        add_pre_process_metadata(model)
        onnx.save(model, str(ready))
    except Exception as error:  # onnx and onnxruntime raise errors of many kinds
        raise MethodError(f"{method}: {path.name} cannot be prepared for quantization: {one_line(error)}") from error
    finally:
        plain.unlink(missing_ok=True)
        folded.unlink(missing_ok=True)
    return ready


def load_graph(path: Path, context: BuildContext, method: str) -> "OnnxGraph":
    """Return the graph of a prepared file, which is deleted from the workspace.

    Raises:
        MethodError: The file cannot be prepared.
    """
    from orchestrator.plugin.onnx_graph import OnnxGraph

    ready = prepare(path, context, method)
    graph = OnnxGraph(load_model(ready, method))
    ready.unlink()
    return graph


def _set_unique_names(model: Any) -> None:
    """Give every node a unique name, and remove the exporter's metadata.

    Quantizers identify nodes by their names, which may be empty. The metadata (stack traces of the torch module) would be a fifth
    of a quantized ResNet-20.
    """
    used: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{position}"
        while node.name in used:
            node.name += "_"
        used.add(node.name)
        node.ClearField("metadata_props")
        node.ClearField("doc_string")


@contextmanager
def quantizer_errors(method: str) -> Iterator[None]:
    """Drop the output, warnings and log records of onnxruntime's quantizer, and raise its errors as one line.

    It logs through the root logger's module functions, which would install a handler for the whole process.

    Raises:
        MethodError: The quantizer failed.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_foreign)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty histogram bins and the like
            yield
    except (MethodError, OSError):  # a full disk stops the run
        raise
    except Exception as error:  # its own errors are of many kinds
        raise MethodError(f"{method}: onnxruntime cannot quantize this network: {one_line(error)}") from error
    finally:
        root.removeFilter(_is_foreign)
        root.removeHandler(handler)


def _is_foreign(record: logging.LogRecord) -> bool:
    """Return True if a record of the root logger is not of the quantizer."""
    return "onnxruntime" not in record.pathname


def save(model: Any, context: BuildContext, method: str) -> Path:
    """Save a quantized model as `METHOD.onnx` in the workspace; return its path after validation."""
    import onnx

    path = context.workspace / f"{method}.onnx"
    onnx.save(model, str(path))
    return validate(path, context, method)


def validate(path: Path, context: BuildContext, method: str) -> Path:
    """Run a file on the task's example; return its path.

    Raises:
        MethodError: onnxruntime does not run it, or its outputs are not finite.
    """
    import numpy as np

    from orchestrator.plugin.onnx_graph import example_outputs

    try:
        outputs = example_outputs(path, context)
    except Exception as error:  # onnxruntime's errors have no common root
        raise MethodError(f"{method}: onnxruntime does not run the quantized network: {one_line(error)}") from error
    if not all(np.isfinite(o).all() for o in outputs if np.issubdtype(o.dtype, np.floating)):
        raise MethodError(f"{method}: the quantized network's outputs are not finite")
    return path
