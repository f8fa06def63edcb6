"""Counts of an exported graph: multiply-accumulates, parameters, memory traffic, operator by operator."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx

from orchestrator.errors import InputError
from orchestrator.hardware.fusion import Fusion
from orchestrator.hardware.operators import (
    FREE_OPERATORS,
    KNOWN_OPERATORS,
    MAC_OPERATORS,
    SELECTIONS,
    WEIGHT_INPUT,
    WEIGHT_POSITIONS,
)
from orchestrator.hardware.shapes import ShapedGraph, TensorType, read_shaped_graph
from orchestrator.values.profile import NumberFormat

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_SMALL_INTEGERS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
_FORMATS: Mapping[int, NumberFormat] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """The dimensions of a convolution or a matrix product, as its kernel sees them.

    A matrix product is a convolution with one pixel a row: its depth counts as input channels, its columns as output channels.

    Attributes:
        kernel: Size along each spatial axis; a matrix product has none.
        strides: Likewise.
        dilations: Likewise.
        in_size: Pixels along each spatial axis; the rows of a matrix product.
        out_size: Likewise.
        stored: True if the second operand is a constant of the file (weights) and not an activation.
        batch: Examples at once; a matrix product has them among its rows.
    """

    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    in_size: tuple[int, ...] = ()
    out_size: tuple[int, ...] = ()
    transposed: bool = False
    stored: bool = True
    batch: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """One node of the graph and its work for one example.

    Attributes:
        macs: Multiply-accumulates.
        bytes_read: Activations and weights; those of a fused operator count for the one that it is fused into.
        bytes_written: Likewise.
        elements_read: Elements of activations that it reads itself (a fused operator too).
        elements_written: Likewise.
        channels: (channels, elements) of each of these activations. Channels are all axes between the batch and the last two,
            because a shuffle of channels has one axis more.
        weights: Elements of constants that it reads.
        window: Elements of the window of a pooling operator, 1 for others.
        product: Dimensions of a convolution or matrix product.
        number_format: Number format of the arithmetic.
        fused_into: Name of the operator that it is fused into, or None.
        free: True if it costs nothing: a view, a constant, a pair of quantizers that the runtime removes.
        known: True if the latency model knows its cost.
    """

    name: str
    op_type: str
    macs: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    elements_read: int = 0
    elements_written: int = 0
    channels: tuple[tuple[int, int], ...] = ()
    weights: int = 0
    window: int = 1
    product: Product | None = None
    number_format: NumberFormat = "float32"
    fused_into: str | None = None
    free: bool = False
    known: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphCount:
    """The work of an exported model, in total and by operator in topological order.

    Attributes:
        parameters: Weights and biases (normalisation statistics too); no shapes, scales or zero points.
    """

    macs: int
    parameters: int
    operators: tuple[Operator, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the kinds of operator that the model does not know, each once."""
        return tuple(dict.fromkeys(o.op_type for o in self.operators if not o.known))


def count(model_path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> GraphCount:
    """Count the work of one inference of an exported model.

    Args:
        model_path: The ONNX file.
        shapes: Full shapes of the inputs that have dynamic axes besides the batch axis, by input name.

    Raises:
        InputError: The file cannot be read, or a shape that the count needs is dynamic.
    """
    graph = read_shaped_graph(model_path, shapes)
    fusion = Fusion(graph)
    operators = tuple(_operator(node, graph, fusion, model_path) for node in graph.nodes)
    return GraphCount(macs=sum(o.macs for o in operators), parameters=_parameters(graph, fusion), operators=operators)


def _operator(node: Any, graph: ShapedGraph, fusion: Fusion, path: Path) -> Operator:
    name, kind = fusion.name(node), node.op_type
    label = kind if node.domain in ("", "ai.onnx", "com.microsoft") else f"{node.domain}::{kind}"
    if kind in FREE_OPERATORS or fusion.is_free(node):
        return Operator(name=name, op_type=label, free=True)
    root = fusion.root(node)
    own = asdict(_traffic(node, graph.tensors, fusion))
    if root is not None:
        int8 = fusion.is_int8(root)
        form: NumberFormat = "int8" if int8 else _format(root, graph.tensors)
        return Operator(name=name, op_type=label, fused_into=fusion.name(root), number_format=form, **own)
    int8 = fusion.is_int8(node)
    read = [fusion.stored(i) if int8 else graph.tensors.get(i) for i in fusion.operands(node)]
    written = [fusion.stored_result(o) if int8 else graph.tensors.get(o) for o in fusion.results(node)]
    bytes_written = sum(t.size_bytes for t in written if t)
    return Operator(
        name=name,
        op_type=label,
        macs=_macs(node, graph.tensors, path) if kind in MAC_OPERATORS else 0,
        bytes_read=bytes_written if kind in SELECTIONS else sum(t.size_bytes for t in read if t),
        bytes_written=bytes_written,
        number_format="int8" if int8 else _format(node, graph.tensors),
        known=kind in KNOWN_OPERATORS and None not in read and None not in written,
        window=prod(_attributes(node, "kernel_shape", ())) if "Pool" in kind else 1,
        product=_product(node, graph.tensors, fusion) if kind in MAC_OPERATORS else None,
        **own,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Traffic:
    """Elements that pass through a node."""

    elements_read: int
    elements_written: int
    channels: tuple[tuple[int, int], ...]
    weights: int


def _traffic(node: Any, tensors: Mapping[str, TensorType], fusion: Fusion) -> _Traffic:
    written = [tensors[o].shape for o in node.output if o in tensors]
    activations = [tensors[i].shape for i in node.input if i in tensors and i not in fusion.constants]
    positions = WEIGHT_POSITIONS.get(node.op_type, range(len(node.input)))
    weights = [i for p, i in enumerate(node.input) if i in fusion.constants and i in tensors and p in positions]
    read = written if node.op_type in SELECTIONS else activations
    return _Traffic(
        elements_read=sum(prod(shape) for shape in read),
        elements_written=sum(prod(shape) for shape in written),
        channels=tuple((_channels(shape), prod(shape)) for shape in (*read, *written)),
        weights=sum(prod(tensors[w].shape) for w in weights),
    )


def _channels(shape: tuple[int, ...]) -> int:
    return prod(shape[1:-2]) if len(shape) > 3 else shape[1] if len(shape) > 1 else 1


def _product(node: Any, tensors: Mapping[str, TensorType], fusion: Fusion) -> Product | None:
    """Return the dimensions of a convolution or matrix product; None for recurrent layers and packed weights."""
    kind = node.op_type
    if kind in ("RNN", "GRU", "LSTM", "MatMulNBits"):
        return None
    second = node.input[WEIGHT_INPUT[kind]]
    data, weights, result = (tensors[t].shape for t in (node.input[0], second, node.output[0]))
    stored = second in fusion.constants
    if "Conv" in kind and len(data) > 2:
        axes, group = len(data) - 2, _attribute(node, "group", 1)
        return Product(
            in_channels=data[1],
            out_channels=result[1],
            groups=group,
            kernel=tuple(weights[2:]),
            strides=_attributes(node, "strides", (1,) * axes),
            dilations=_attributes(node, "dilations", (1,) * axes),
            in_size=tuple(data[2:]),
            out_size=tuple(result[2:]),
            transposed=kind == "ConvTranspose",
            stored=stored,
            batch=result[0],
        )
    depth = data[0 if _attribute(node, "transA", 0) else -1] if data else 1
    columns = result[-1] if result else 1
    rows = prod(result) // columns if columns else 1
    return Product(in_channels=depth, out_channels=columns, in_size=(rows,), out_size=(rows,), stored=stored)


def _format(node: Any, tensors: Mapping[str, TensorType]) -> NumberFormat:
    first = tensors.get(node.input[0]) if node.input else None
    return _FORMATS.get(first.dtype, "float32") if first else "float32"


def _attribute(node: Any, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _attributes(node: Any, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == name), default)


def _macs(node: Any, tensors: Mapping[str, TensorType], path: Path) -> int:
    """Return the multiply-accumulates of one node, by the definitions of the ONNX operators."""
    shapes = []
    for tensor in (node.input[0], node.input[WEIGHT_INPUT[node.op_type]], node.output[0] or node.output[1]):
        if tensor not in tensors:
            raise InputError(
                f"{path}: the shape of '{tensor}' at {node.op_type} '{node.name}' cannot be inferred; "
                f"export the model with fixed shapes or give --input-shape"
            )
        shapes.append(tensors[tensor].shape)
    data, weights, result = shapes
    match node.op_type:
        case "Conv" | "FusedConv" | "ConvInteger" | "QLinearConv":
            return prod(weights) * prod(result[2:]) * result[0]
        case "ConvTranspose":
            return prod(weights) * prod(data[2:]) * data[0]
        case "Gemm" | "FusedGemm" | "QGemm":
            return prod(result) * data[0 if _attribute(node, "transA", 0) else 1]
        case "RNN" | "GRU" | "LSTM":
            recurrent = tensors[node.input[2]].shape
            return prod(data[:2]) * (prod(weights) + prod(recurrent))
        case _:
            return prod(result) * data[-1]


def _parameters(graph: ShapedGraph, fusion: Fusion) -> int:
    """Return the elements of every stored constant that an operator uses as weights; shared ones count once."""
    counted: dict[str, int] = {}
    for node in graph.nodes:
        for position, name in enumerate(node.input):
            if name not in fusion.stored_constants or position not in WEIGHT_POSITIONS.get(node.op_type, (position,)):
                continue
            tensor = graph.tensors.get(name)
            if tensor is None or not tensor.shape:
                continue
            is_bias = tensor.dtype == onnx.TensorProto.INT32 and node.op_type in WEIGHT_POSITIONS
            if node.op_type == "MatMulNBits" and position == 1:
                counted[name] = _attribute(node, "N", 0) * _attribute(node, "K", 0)  # several in one byte
            elif tensor.dtype in (*_FLOATS, *_SMALL_INTEGERS) or is_bias:
                counted[name] = prod(tensor.shape)
    return sum(counted.values())
