"""Bias correction (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2).

Rounded weights W~ shift the mean of a layer's output by E[(W~ - W) x]. x is measured on calibration data, not estimated from
batch norms, and all layers are corrected in one pass on the inputs of the float network. Imports onnx; imported on use.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from orchestrator.plugin.onnx_graph import Array, OnnxGraph, attribute, cpu_session
from orchestrator_quantization.layers import weighted_layers

CHANNELS_SECOND = frozenset({"Conv", "ConvTranspose"})


def correctable(graph: OnnxGraph) -> list[Any]:
    """Return the layers whose bias can be corrected."""
    return [node for node in weighted_layers(graph) if node.op_type in CHANNELS_SECOND or _biased(graph, node) is not None]


def correct(graph: OnnxGraph, quantized: Path, batches: Iterable[dict[str, Array]]) -> int:
    """Change the biases of all quantized layers in place, so that rounded weights keep the means of their outputs.

    Args:
        graph: The float network.
        quantized: The same network in QDQ form, with equal node names.
        batches: Calibration batches.

    Returns:
        The number of corrected layers.
    """
    errors = _weight_errors(graph, quantized)
    if not errors:
        return 0
    for name, mean in _means(graph, errors, batches).items():
        _add(graph, next(node for node in graph.nodes if node.name == name), mean.astype(np.float32))
    return len(errors)


def _weight_errors(graph: OnnxGraph, quantized: Path) -> dict[str, Array]:
    """Return W - W~ of every correctable layer that is quantized, by the node's name."""
    written = OnnxGraph(onnx.load(str(quantized)))
    nodes = {node.name: node for node in written.nodes}
    errors = {}
    for node in correctable(graph):
        source = written.producers.get(nodes[node.name].input[1]) if node.name in nodes else None
        if source is not None and source.op_type == "DequantizeLinear" and written.constant(source, 0) is not None:
            values, scale, zero = (written.array(name).astype(np.float32) for name in source.input)
            axis = attribute(source, "axis", 1)
            shape = [-1 if k == axis else 1 for k in range(values.ndim)] if scale.size > 1 else [1] * values.ndim
            errors[node.name] = graph.array(node.input[1]) - (values - zero.reshape(shape)) * scale.reshape(shape)
    return errors


def _means(graph: OnnxGraph, errors: dict[str, Array], batches: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """Return E[(W - W~) x] for each output channel of each of those layers, shape (channels,)."""
    model = copy.deepcopy(graph.model)
    requested, pooled = [], set()
    for node in [node for node in model.graph.node if node.name in errors]:
        layer = copy.deepcopy(node)
        del layer.input[2:]
        weight, output = f"{node.name}.weight_error", f"{node.name}.error"
        model.graph.initializer.append(numpy_helper.from_array(errors[node.name].astype(np.float32), weight))
        layer.name, layer.input[1], layer.output[0] = output, weight, output
        model.graph.node.append(layer)
        if node.op_type in CHANNELS_SECOND:  # averaged in the graph, because complete feature maps would fill the memory
            model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [output], [f"{output}.mean"]))
            output = f"{output}.mean"
            pooled.add(node.name)
        requested.append((node.name, output))
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = cpu_session(model.SerializeToString())
    sums: dict[str, Any] = dict.fromkeys(errors, 0.0)
    rows = dict.fromkeys(errors, 0)
    for batch in batches:
        for (name, _), value in zip(requested, session.run([output for _, output in requested], batch), strict=True):
            flat = value.reshape(-1, value.shape[1 if name in pooled else -1]).astype(np.float64)
            sums[name], rows[name] = sums[name] + flat.sum(0), rows[name] + len(flat)
    return {name: sums[name] / rows[name] for name in errors}


def _biased(graph: OnnxGraph, node: Any) -> tuple[Any, int] | None:
    """Return the node that adds a matrix product's bias, and the index of the bias among its inputs; None if there is none.

    A Gemm without a bias can get one.
    """
    weight = graph.weight(node, 1) if node.op_type in ("Gemm", "MatMul") else None
    if weight is None:
        return None
    if node.op_type == "Gemm":
        width = weight.shape[0 if attribute(node, "transB", 0) else 1]
        absent = len(node.input) < 3 or not node.input[2]
        bias = graph.weight(node, 2)
        fits = absent or (bias is not None and bias.shape == (width,))
        return (node, 2) if fits and attribute(node, "beta", 1.0) == 1 else None
    adding = graph.follower(node)
    if adding is None or adding.op_type != "Add":
        return None
    for place in (0, 1):
        bias = graph.weight(adding, place)
        if bias is not None and bias.shape == (weight.shape[-1],):
            return adding, place
    return None


def _add(graph: OnnxGraph, node: Any, change: Array) -> None:
    """Add to a layer's bias, which becomes a constant of its own, because other layers may share the present one."""
    holder, place = (node, 2) if node.op_type in CHANNELS_SECOND else _biased(graph, node) or (node, 2)
    before = graph.weight(holder, place)
    name = graph.add_constant(f"{node.name}.bias", change if before is None else before + change)
    while len(holder.input) <= place:
        holder.input.append("")
    holder.input[place] = name
