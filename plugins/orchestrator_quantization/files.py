"""ONNX files on their way through a method: read, made ready, and the finished one tried.

Nothing of onnx or onnxruntime is imported before a file is at hand.
"""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.plugin import BuildContext, MethodError

if TYPE_CHECKING:
    from orchestrator_quantization.graph import Graph

OPSET = 13
"""The oldest operator set with scales per channel in QuantizeLinear."""

LARGEST_BYTES = 2**31 - 1
"""A protobuf message, and so an ONNX file without external data, is never larger."""


def weights(model: Any) -> dict[str, int]:
    """Constant elements that each type of operator multiplies by (Conv, Gemm, MatMul, LSTM, ...): `{type: elements}`."""
    sizes = _constants(model)
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Attention"):
            held = sum(sizes.get(name, 0) for name in list(node.input)[1:3])
            found[node.op_type] = found.get(node.op_type, 0) + held
    return found


def _constants(model: Any) -> dict[str, int]:
    """Elements of every constant, in an initializer or as a Constant node, through Transpose and Identity."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            sizes[node.output[0]] = sum(math.prod(a.t.dims) for a in node.attribute if a.name == "value")
        elif node.op_type in ("Transpose", "Identity") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    return sizes


def read(path: Path, method: str) -> Any:
    """The model with its external data.

    Raises:
        MethodError: the file cannot be read or is too large to be quantized here.
    """
    import onnx

    size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())
    if size > LARGEST_BYTES:
        raise MethodError(f"{method}: {path.name} holds {size} bytes, but quantization takes at most {LARGEST_BYTES}")
    try:
        model = onnx.load(str(path))
        size = model.ByteSize()
    except Exception as error:  # protobuf's and the file system's own errors
        raise MethodError(f"{method}: {path.name} cannot be read as ONNX: {_line(error)}") from error
    if size > LARGEST_BYTES:
        raise MethodError(f"{method}: {path.name} holds {size} bytes, but quantization takes at most {LARGEST_BYTES}")
    return model


def prepared(path: Path, context: BuildContext, method: str) -> Path:
    """A float file that onnxruntime's quantizers take, in the workspace.

    Its operator set is new enough for scales per channel, batch norms are folded into convolutions, constants are
    initializers, and shapes are inferred afresh: those that exporters write differ from them at times, which stops the
    quantizer.

    Raises:
        MethodError: the file cannot be made ready.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_infer_metadata, add_pre_process_metadata

    model = read(path, method)
    context.workspace.mkdir(parents=True, exist_ok=True)
    plain, folded, ready = (context.workspace / f"{stage}.onnx" for stage in ("plain", "folded", "ready"))
    try:
        if _opset(model) < OPSET:
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
        _tidy(model)
        model = onnx.shape_inference.infer_shapes(model)
        add_infer_metadata(model)  # or quantizers do once more what has just been done
        add_pre_process_metadata(model)
        onnx.save(model, str(ready))
    except Exception as error:  # onnx and onnxruntime raise errors of many kinds
        raise MethodError(f"{method}: {path.name} cannot be made ready for quantization: {_line(error)}") from error
    finally:
        plain.unlink(missing_ok=True)
        folded.unlink(missing_ok=True)
    return ready


def opened(path: Path, context: BuildContext, method: str) -> "Graph":
    """The graph of the file made ready; nothing of it is left in the workspace.

    Raises:
        MethodError: the file cannot be made ready.
    """
    from orchestrator_quantization.graph import Graph

    ready = prepared(path, context, method)
    graph = Graph(read(ready, method))
    ready.unlink()
    return graph


def _tidy(model: Any) -> None:
    """Give every node a name of its own, and take off the exporter's notes.

    Quantizers tell nodes apart by their names, which may be empty. The notes (stack traces of the torch module) would be a fifth
    of a quantized ResNet-20.
    """
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
        node.ClearField("metadata_props")
        node.ClearField("doc_string")


def _opset(model: Any) -> int:
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)


@contextmanager
def quantizing(method: str) -> Iterator[None]:
    """Around a call of onnxruntime's quantizer: its prints, warnings and log lines are dropped, what it raises becomes one line.

    It logs through the root logger's module functions, which would install a handler for the whole program.

    Raises:
        MethodError: the quantizer failed.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_drop)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty histogram bins and the like
            yield
    except (MethodError, OSError):  # of a full disk the run must hear
        raise
    except Exception as error:  # its own errors are of many kinds
        raise MethodError(f"{method}: onnxruntime cannot quantize this network: {_line(error)}") from error
    finally:
        root.removeFilter(_drop)
        root.removeHandler(handler)


def _drop(record: logging.LogRecord) -> bool:
    """Whether a record of the root logger stays: those of the quantizer do not."""
    return "onnxruntime" not in record.pathname


def tried(path: Path, context: BuildContext, method: str) -> Path:
    """The file itself, after one batch went through it.

    Raises:
        MethodError: onnxruntime does not run it, or its outputs are not finite.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        wanted = {i.name: i.shape[0] if i.shape else None for i in session.get_inputs()}
        batch = next((size for size in wanted.values() if isinstance(size, int)), None)
        example = {k: v.detach().cpu().numpy() for k, v in context.example.items() if k in wanted}
        outputs = session.run(None, {k: v[:batch] for k, v in example.items()})
    except Exception as error:  # onnxruntime's errors have no common root
        raise MethodError(f"{method}: onnxruntime does not run the quantized network: {_line(error)}") from error
    if not all(np.isfinite(o).all() for o in outputs if np.issubdtype(o.dtype, np.floating)):
        raise MethodError(f"{method}: the quantized network's outputs are not finite")
    return path


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
