"""Shapes of every tensor of an ONNX file, determined without its weights and without writing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
import onnx.external_data_helper
import onnx.inliner
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from orchestrator.errors import InputError, unknown
from orchestrator.hardware.shape_folding import fold_shapes

SMALL = 1024
"""Elements. Shape inference needs the values of shapes, axes and the like, never those of larger tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorType:
    """Shape and element type (a value of onnx.TensorProto.DataType) of one tensor."""

    shape: tuple[int, ...]
    dtype: int

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the tensor; two 4-bit numbers share one."""
        if self.dtype in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
            return (prod(self.shape) + 1) // 2
        return int(prod(self.shape) * onnx.helper.tensor_dtype_to_np_dtype(self.dtype).itemsize)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapedGraph:
    """The nodes in topological order, every tensor whose type is known, and the inputs and outputs."""

    nodes: Sequence[Any]
    tensors: Mapping[str, TensorType]
    initializers: frozenset[str]
    outputs: frozenset[str]


def read_shaped_graph(model_path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> ShapedGraph:
    """Read a model for one example: axis 0 of an input is 1 if it is dynamic.

    Args:
        model_path: The ONNX file.
        shapes: Full shapes of inputs with other dynamic axes, by input name.

    Raises:
        InputError: The file cannot be read, or a dynamic axis has no size.
    """
    model = _load(model_path)
    _lighten(model, model_path)
    _settle_inputs(model.graph, shapes or {}, model_path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return ShapedGraph(
        nodes=list(model.graph.node),
        tensors=_infer(model, model_path),
        initializers=frozenset(i.name for i in model.graph.initializer),
        outputs=frozenset(o.name for o in model.graph.output),
    )


def read_inputs(model_path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, TensorType]:
    """Return the inputs of a model for one example, by input name.

    Raises:
        InputError: The file cannot be read, a dynamic axis has no size, or an input is not numeric.
    """
    model = _load(model_path)
    _settle_inputs(model.graph, shapes or {}, model_path)
    weights = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = _tensor_type(value)
        if kind is None or kind.dtype in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
            raise InputError(f"{model_path}: input '{value.name}' is no tensor of numbers of a known shape")
        found[value.name] = kind
    if not found:
        raise InputError(f"{model_path}: the model has no inputs")
    return found


def _load(path: Path) -> Any:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: not an ONNX file ({str(error).splitlines()[0]})") from None
    if not model.graph.node:
        raise InputError(f"{path}: the file holds no operators; is it an ONNX model?")
    return model


def _lighten(model: Any, path: Path) -> None:
    """Drop large weights from memory and load small external tensors: inference copies the model several times."""
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > SMALL:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
        elif onnx.external_data_helper.uses_external_data(tensor):
            try:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{path}: the data of '{tensor.name}' beside it cannot be read ({reason})") from None
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def _settle_inputs(graph: Any, shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    """Give every axis of every input a size; axes with the same name in the file share it."""
    weights = {i.name for i in graph.initializer}
    inputs = {v.name: v.type.tensor_type for v in graph.input if v.name not in weights}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise InputError(f"{path}: {unknown('input', name, inputs)}")
        _give_shape(name, inputs[name], tuple(shape), sizes, path)
    for name, kind in inputs.items():
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                continue
            if axis == 0:
                sizes.setdefault(dim.dim_param, 1)
            if not (axis == 0 or (dim.dim_param and dim.dim_param in sizes)):
                called = f" ('{dim.dim_param}')" if dim.dim_param else ""
                raise InputError(
                    f"{path}: input '{name}' has a dynamic axis {axis}{called} without a size; "
                    f"give the whole shape, as in --input-shape {name}=1,..."
                )
            dim.dim_value = sizes[dim.dim_param] if dim.dim_param else 1


def _give_shape(name: str, kind: Any, shape: tuple[int, ...], sizes: dict[str, int], path: Path) -> None:
    if not kind.HasField("shape"):
        for _ in shape:
            kind.shape.dim.add()
    fits = len(shape) == len(kind.shape.dim) and all(
        size > 0 and (not dim.HasField("dim_value") or dim.dim_value == size)
        for size, dim in zip(shape, kind.shape.dim, strict=True)
    )
    if not fits:
        stated = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
        raise InputError(f"{path}: the shape of input '{name}' must fit {stated}, but got {list(shape)}")
    for size, dim in zip(shape, kind.shape.dim, strict=True):
        if dim.dim_param:
            sizes[dim.dim_param] = size
        dim.dim_value = size


def _infer(model: Any, path: Path) -> dict[str, TensorType]:
    """Infer all shapes again, because the file's may be for another batch or an older graph.

    If inference fails (operators unknown to onnx), the file's shapes are used.
    """
    stated = {v.name: v for v in model.graph.value_info}
    work = onnx.ModelProto()
    work.CopyFrom(model)
    del work.graph.value_info[:]
    for output in work.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in work.graph.node:
        _to_standard_form(node, work.graph)
    tensors = _inferred(work, path)
    while _open(work.graph, tensors) and fold_shapes(work.graph, {name: t.shape for name, t in tensors.items()}):
        # Folded nodes leave the graph, so the results of all rounds are collected.
        tensors |= _inferred(work, path)
    left = [v for name, v in stated.items() if name not in tensors and _tensor_type(v) is not None]
    if left:
        work.graph.value_info.extend(left)
        tensors |= _inferred(work, path)
    return tensors


def _open(graph: Any, tensors: Mapping[str, TensorType]) -> bool:
    """Return True if a tensor's shape is still unknown."""
    return any(o and o not in tensors for node in graph.node for o in node.output)


def _inferred(model: Any, path: Path) -> dict[str, TensorType]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the shapes cannot be inferred ({str(error).splitlines()[0]})") from None
    tensors = {i.name: TensorType(shape=tuple(i.dims), dtype=i.data_type) for i in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = _tensor_type(value)
        if kind is not None:
            tensors.setdefault(value.name, kind)
    return tensors


def _tensor_type(value: Any) -> TensorType | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return TensorType(shape=tuple(dim.dim_value for dim in kind.shape.dim), dtype=kind.elem_type)


_STANDARD_FORM = {
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QuickGelu": ("Sigmoid", (0,)),
    "FastGelu": ("Sigmoid", (0,)),
    "BiasGelu": ("Add", (0, 1)),
}
"""onnxruntime's own operators as the ONNX operator of the same output shape, with the inputs that determine it."""


def _to_standard_form(node: Any, graph: Any) -> None:
    """Rewrite one of onnxruntime's own operators so that onnx can infer its output shape (on the copy for inference)."""
    if node.domain != "com.microsoft":
        return
    if node.op_type == "QLinearConcat":
        name, kept = "Concat", list(node.input[2::3])
    elif node.op_type == "MatMulNBits":  # its weights are packed blocks of a K x N matrix
        sizes = {a.name: a.i for a in node.attribute}
        matrix = f"{node.input[1]} of {node.output[0]}"
        graph.initializer.append(onnx.TensorProto(name=matrix, dims=[sizes["K"], sizes["N"]], data_type=onnx.TensorProto.FLOAT))
        name, kept = "MatMul", [node.input[0], matrix]
        del node.attribute[:]
    elif node.op_type in _STANDARD_FORM:
        name, positions = _STANDARD_FORM[node.op_type]
        kept = [node.input[i] for i in positions]
    else:
        return
    node.op_type, node.domain = name, ""
    del node.input[:]
    node.input.extend(kept)
