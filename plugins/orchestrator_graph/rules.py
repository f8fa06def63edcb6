"""Rewriting rules on ONNX graphs in memory. Imports onnx; imported on use."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from orchestrator.plugin.onnx_graph import Array, OnnxGraph, attribute

MOST_CHANNELS = 512
"""Largest number of channels of a 1x1 convolution that copies: it multiplies all inputs by all outputs."""
END = 2**31 - 1


def rewrite(model: ModelProto) -> int:
    """Apply every rule in place until none matches; return the number of applications.

    Args:
        model: Model with inferred shapes.
    """
    count = 0
    while any(rule(ShapedOnnxGraph(model)) for rule in RULES):
        count += 1
        # Shapes of removed values must go, and those of new ones are needed by the next rule.
        del model.graph.value_info[:]
        model.CopyFrom(shape_inference.infer_shapes(model))
    return count


class ShapedOnnxGraph(OnnxGraph):
    """A graph with the inferred shapes and types of its tensors."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        self.shapes: dict[str, list[int | None]] = {}
        self.types: dict[str, int] = {}
        for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
            tensor = value.type.tensor_type
            self.shapes[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            self.types[value.name] = tensor.elem_type

    def operand(self, node: NodeProto, place: int, default: Array) -> Array | None:
        """Return the constant at an input, the default if the input is left out, or None if it is no constant."""
        left_out = place >= len(node.input) or not node.input[place]
        return default if left_out else self.constant(node, place)

    def is_image(self, name: str) -> bool:
        """Return True for a float map of shape (N, C, H, W) with a known number of channels."""
        shape = self.shapes.get(name, [])
        return len(shape) == 4 and shape[1] is not None and self.types.get(name) == TensorProto.FLOAT

    def replace(self, old: list[NodeProto], new: list[NodeProto]) -> None:
        """Replace nodes by others at the place of the last one."""
        nodes, removed = self.nodes, [id(node) for node in old]
        place = max(k for k, node in enumerate(nodes) if id(node) in removed)
        self.nodes = [*(node for node in nodes[: place + 1] if id(node) not in removed), *new, *nodes[place + 1 :]]


def strided_copy(graph: ShapedOnnxGraph) -> bool:
    """Replace strided slices of rows and columns, and zero-padding of channels, by one 1x1 convolution (or max pooling)."""
    for node in graph.nodes:
        padding = _channel_padding(graph, node)
        if padding is None and (_strides(graph, node) is None or _has_successor(graph, node)):
            continue
        chain, strides = [node], _strides(graph, node) or [1, 1]
        while (step := _strides(graph, before := graph.producers.get(chain[0].input[0]))) and before is not None:
            if graph.follower(before) is None:
                break
            chain.insert(0, before)
            strides = [a * b for a, b in zip(strides, step, strict=True)]
        source, result = chain[0].input[0], node.output[0]
        if padding is None:
            pooling = {"name": f"{node.name}_strided", "kernel_shape": [1, 1], "strides": strides}
            graph.replace(chain, [helper.make_node("MaxPool", [source], [result], **pooling)])
            return True
        channels = int(graph.shapes[source][1] or 0)
        if channels + sum(padding) > MOST_CHANNELS:
            continue
        selection = np.zeros((channels + sum(padding), channels, 1, 1), np.float32)
        selection[np.arange(channels) + padding[0], np.arange(channels), 0, 0] = 1
        weight = graph.add_constant(f"{result}_selection", selection)
        convolution = {"name": f"{node.name}_conv", "kernel_shape": [1, 1], "strides": strides}
        graph.replace(chain, [helper.make_node("Conv", [source, weight], [result], **convolution)])
        return True
    return False


def _has_successor(graph: ShapedOnnxGraph, node: NodeProto) -> bool:
    """Return True if another copy follows in the chain."""
    return any(_channel_padding(graph, n) or _strides(graph, n) for n in graph.consumers[node.output[0]])


def _strides(graph: ShapedOnnxGraph, node: NodeProto | None) -> list[int] | None:
    """Return the strides over rows and columns of a slice of every n-th of them; None for any other node."""
    if node is None or node.op_type != "Slice" or not graph.is_image(node.input[0]):
        return None
    starts, ends, axes = (graph.constant(node, k) for k in (1, 2, 3))
    if starts is None or ends is None or axes is None:
        return None
    steps = graph.operand(node, 4, np.ones_like(starts))
    if steps is None:
        return None
    strides = [1, 1]
    shape = graph.shapes[node.input[0]]
    for start, end, axis, step in zip(*(a.reshape(-1).tolist() for a in (starts, ends, axes, steps)), strict=True):
        length = shape[axis % 4]
        complete = start == 0 and (end >= END or (length is not None and end >= length))
        if not complete or step < 1 or (axis % 4 < 2 and step != 1):
            return None
        if axis % 4 >= 2:
            strides[axis % 4 - 2] *= step
    return strides


def _channel_padding(graph: ShapedOnnxGraph, node: NodeProto) -> tuple[int, int] | None:
    """Return the zero channels before and after of a padding of channels only; None for any other node."""
    if node.op_type != "Pad" or not graph.is_image(node.input[0]) or attribute(node, "mode", b"constant") != b"constant":
        return None
    pads, value, axes = graph.constant(node, 1), graph.operand(node, 2, np.zeros(1)), graph.operand(node, 3, np.arange(4))
    if pads is None or value is None or axes is None or np.any(value != 0):
        return None
    amounts = {int(a) % 4: (int(b), int(e)) for a, b, e in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)}
    before, after = amounts.pop(1, (0, 0))
    if any(amount != (0, 0) for amount in amounts.values()) or before < 0 or after < 0 or before + after == 0:
        return None
    return before, after


def global_average(graph: ShapedOnnxGraph) -> bool:
    """Replace a mean over rows and columns by global average pooling, which runtimes have in their own layouts and in INT8."""
    for node in graph.nodes:
        if node.op_type != "ReduceMean" or not graph.is_image(node.input[0]):
            continue
        axes: Any = graph.constant(node, 1)
        axes = attribute(node, "axes", None) if axes is None else axes.reshape(-1)
        if axes is None or sorted(int(a) % 4 for a in axes) != [2, 3]:
            continue
        keeps = attribute(node, "keepdims", 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        new = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool")]
        if not keeps:
            new.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1))
        graph.replace([node], new)
        return True
    return False


RULES: tuple[Callable[[ShapedOnnxGraph], bool], ...] = (strided_copy, global_average)
