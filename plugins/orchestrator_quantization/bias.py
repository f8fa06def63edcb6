"""Bias correction: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.

Rounded weights W~ shift the mean of a layer's output by E[(W~ - W) x]. Calibration data tell x, so that no batch norm is needed
to guess it, and all layers are corrected in one pass: each sees the inputs of the float network. Loads onnx and onnxruntime:
imported where a file is at hand.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from orchestrator_quantization.graph import Array, Graph

CHANNELS_SECOND = frozenset({"Conv", "ConvTranspose"})


def correctable(graph: Graph) -> list[Any]:
    """The layers whose bias can be corrected."""
    return [node for node in graph.layers() if node.op_type in CHANNELS_SECOND or _biased(graph, node) is not None]


def correct(graph: Graph, quantized: Path, batches: Iterable[dict[str, Array]]) -> int:
    """Change the biases of all quantized layers in place, so that rounded weights leave the means of their outputs alone.

    Args:
        graph: The float network.
        quantized: The same network in QDQ form, nodes by the same names.

    Returns:
        Layers that were corrected.
    """
    errors = _weight_errors(graph, quantized)
    if not errors:
        return 0
    for name, mean in _means(graph, errors, batches).items():
        _add(graph, next(node for node in graph.nodes if node.name == name), mean.astype(np.float32))
    return len(errors)


def _weight_errors(graph: Graph, quantized: Path) -> dict[str, Array]:
    """W - W~ of every layer that can be corrected and is quantized, by the node's name."""
    written = onnx.load(str(quantized)).graph
    constants = {tensor.name: tensor for tensor in written.initializer}
    producers = {name: node for node in written.node for name in node.output}
    nodes = {node.name: node for node in written.node}
    found = {}
    for node in correctable(graph):
        source = producers.get(nodes[node.name].input[1]) if node.name in nodes else None
        if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in constants:
            values, scale, zero = (numpy_helper.to_array(constants[name]).astype(np.float32) for name in source.input)
            axis = next((int(a.i) for a in source.attribute if a.name == "axis"), 1)
            shape = [-1 if k == axis else 1 for k in range(values.ndim)] if scale.size > 1 else [1] * values.ndim
            found[node.name] = graph.array(node.input[1]) - (values - zero.reshape(shape)) * scale.reshape(shape)
    return found


def _means(graph: Graph, errors: dict[str, Array], batches: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """E[(W - W~) x] for each output channel of each of those layers: shape (channels,)."""
    model = copy.deepcopy(graph.model)
    wanted, pooled = [], set()
    for node in [node for node in model.graph.node if node.name in errors]:
        layer = copy.deepcopy(node)
        del layer.input[2:]
        weight, output = f"{node.name}.weight_error", f"{node.name}.error"
        model.graph.initializer.append(numpy_helper.from_array(errors[node.name].astype(np.float32), weight))
        layer.name, layer.input[1], layer.output[0] = output, weight, output
        model.graph.node.append(layer)
        if node.op_type in CHANNELS_SECOND:  # the mean over places in the graph: whole feature maps would fill the memory
            model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [output], [f"{output}.mean"]))
            output = f"{output}.mean"
            pooled.add(node.name)
        wanted.append((node.name, output))
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: dict[str, Any] = dict.fromkeys(errors, 0.0)
    rows = dict.fromkeys(errors, 0)
    for batch in batches:
        for (name, _), value in zip(wanted, session.run([output for _, output in wanted], batch), strict=True):
            flat = value.reshape(-1, value.shape[1 if name in pooled else -1]).astype(np.float64)
            sums[name], rows[name] = sums[name] + flat.sum(0), rows[name] + len(flat)
    return {name: sums[name] / rows[name] for name in errors}


def _biased(graph: Graph, node: Any) -> tuple[Any, int] | None:
    """The node that adds a matrix product's bias, and the place of the bias among its inputs; None: none does.

    A Gemm without a bias can have one.
    """
    weight = graph.constant(node, 1) if node.op_type in ("Gemm", "MatMul") else None
    if weight is None:
        return None
    numbers = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
    if node.op_type == "Gemm":
        width = weight.shape[0 if numbers.get("transB") else 1]
        absent = len(node.input) < 3 or not node.input[2]
        held = graph.constant(node, 2)
        return (node, 2) if numbers.get("beta", 1.0) == 1 and (absent or (held is not None and held.shape == (width,))) else None
    adding = graph.follower(node)
    if adding is None or adding.op_type != "Add":
        return None
    for place in (0, 1):
        held = graph.constant(adding, place)
        if held is not None and held.shape == (weight.shape[-1],):
            return adding, place
    return None


def _add(graph: Graph, node: Any, change: Array) -> None:
    """Add to a layer's bias: to one of its own, as others may share the one that it has."""
    holder, place = (node, 2) if node.op_type in CHANNELS_SECOND else _biased(graph, node) or (node, 2)
    before = graph.constant(holder, place)
    name = graph.add(f"{node.name}.bias", change if before is None else before + change)
    while len(holder.input) <= place:
        holder.input.append("")
    holder.input[place] = name
