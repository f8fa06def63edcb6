"""The rewrites themselves, on ONNX graphs in memory. Loads onnx: imported lazily."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

MOST_CHANNELS = 512
"""A 1x1 convolution multiplies every input channel by every output channel: for wide layers that costs more than a copy."""
END = 2**31 - 1


def rewrite(model: ModelProto) -> int:
    """Apply every rewrite until none fits any more, in place; how many were applied.

    Args:
        model: With inferred shapes.
    """
    applied = 0
    while any(rule(RewriteGraph(model)) for rule in RULES):
        applied += 1
        # Those of intermediate values that are gone must go; those that are new are needed by the next rule.
        del model.graph.value_info[:]
        model.CopyFrom(shape_inference.infer_shapes(model))
    return applied


@dataclass
class RewriteGraph:
    """A model with what is looked up again and again."""

    model: ModelProto
    producers: dict[str, NodeProto] = field(init=False)
    uses: dict[str, int] = field(init=False)
    consumers: dict[str, list[NodeProto]] = field(init=False)
    shapes: dict[str, list[int | None]] = field(init=False)
    types: dict[str, int] = field(init=False)
    constants: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.producers = {name: node for node in graph.node for name in node.output}
        self.consumers = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.uses = {name: len(nodes) for name, nodes in self.consumers.items()}
        for value in graph.output:  # an output of the network is used by its caller
            self.uses[value.name] = self.uses.get(value.name, 0) + 1
        values = [*graph.value_info, *graph.input, *graph.output]
        self.shapes, self.types = {}, {}
        for value in values:
            tensor = value.type.tensor_type
            dims = tensor.shape.dim
            self.shapes[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in dims]
            self.types[value.name] = tensor.elem_type
        # Only small ones are looked at: axes, steps, pads.
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if np.prod(t.dims) <= 16}
        for node in graph.node:
            if node.op_type == "Constant":
                held = next((a.t for a in node.attribute if a.name == "value"), None)
                if held is not None and np.prod(held.dims) <= 16:
                    self.constants[node.output[0]] = numpy_helper.to_array(held)

    def constant(self, node: NodeProto, index: int, default: Any = None) -> Any:
        """The constant that a node is given there; `default` where the input is left out; None where it is no constant."""
        if index >= len(node.input) or not node.input[index]:
            return default
        return self.constants.get(node.input[index])

    def image(self, name: str) -> bool:
        """Whether a value is a float map of shape (N, C, H, W) with a known number of channels."""
        shape = self.shapes.get(name, [])
        return len(shape) == 4 and shape[1] is not None and self.types.get(name) == TensorProto.FLOAT

    def replace(self, gone: list[NodeProto], new: list[NodeProto]) -> None:
        """Put `new` where the last of `gone` is."""
        nodes = list(self.model.graph.node)
        place = max(k for k, node in enumerate(nodes) if any(node is g for g in gone))
        kept = [node for node in nodes[: place + 1] if not any(node is g for g in gone)]
        kept += [*new, *(node for node in nodes[place + 1 :])]
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)


def strided_copy(graph: RewriteGraph) -> bool:
    """Slices of every n-th row and column, and zero channels padded around them, as one 1x1 convolution (or max pooling)."""
    for node in graph.model.graph.node:
        padding = _channel_padding(graph, node)
        if padding is None and (_strides(graph, node) is None or _goes_on(graph, node)):
            continue
        chain, strides = [node], _strides(graph, node) or [1, 1]
        while (step := _strides(graph, before := graph.producers.get(chain[0].input[0]))) and before is not None:
            if graph.uses.get(before.output[0], 0) != 1:
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
        weight = f"{result}_selection"
        graph.model.graph.initializer.append(numpy_helper.from_array(selection, weight))
        convolution = {"name": f"{node.name}_conv", "kernel_shape": [1, 1], "strides": strides}
        graph.replace(chain, [helper.make_node("Conv", [source, weight], [result], **convolution)])
        return True
    return False


def _goes_on(graph: RewriteGraph, node: NodeProto) -> bool:
    """Whether the chain of copies does not end with this one."""
    following = graph.consumers.get(node.output[0], [])
    return any(_channel_padding(graph, n) is not None or _strides(graph, n) is not None for n in following)


def _strides(graph: RewriteGraph, node: NodeProto | None) -> list[int] | None:
    """The steps over rows and columns of a slice that takes every n-th from the first to the last; None of anything else."""
    if node is None or node.op_type != "Slice" or not graph.image(node.input[0]):
        return None
    starts, ends, axes = (graph.constant(node, k) for k in (1, 2, 3))
    if starts is None or ends is None or axes is None:
        return None
    steps = graph.constant(node, 4, np.ones_like(starts))
    if steps is None:
        return None
    strides = [1, 1]
    shape = graph.shapes[node.input[0]]
    for start, end, axis, step in zip(*(a.reshape(-1).tolist() for a in (starts, ends, axes, steps)), strict=True):
        length = shape[axis % 4]
        whole = end >= END or (length is not None and end >= length)
        if start != 0 or not whole or step < 1 or (axis % 4 < 2 and step != 1):
            return None
        if axis % 4 >= 2:
            strides[axis % 4 - 2] *= step
    return strides


def _channel_padding(graph: RewriteGraph, node: NodeProto) -> tuple[int, int] | None:
    """Zero channels before and after, of a padding that pads nothing else; None of anything else."""
    if node.op_type != "Pad" or not graph.image(node.input[0]):
        return None
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    pads, value, axes = graph.constant(node, 1), graph.constant(node, 2, np.zeros(1)), graph.constant(node, 3, np.arange(4))
    if mode != b"constant" or pads is None or value is None or axes is None or np.any(value != 0):
        return None
    amounts = {int(a) % 4: (int(b), int(e)) for a, b, e in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)}
    before, after = amounts.pop(1, (0, 0))
    if any(amount != (0, 0) for amount in amounts.values()) or before < 0 or after < 0 or before + after == 0:
        return None
    return before, after


def global_average(graph: RewriteGraph) -> bool:
    """A mean over rows and columns as a global average pooling, which runtimes know in their own layouts and in INT8."""
    for node in graph.model.graph.node:
        if node.op_type != "ReduceMean" or not graph.image(node.input[0]):
            continue
        axes = graph.constant(node, 1)
        if axes is None:
            axes = next((np.array(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None or sorted(int(a) % 4 for a in np.asarray(axes).reshape(-1)) != [2, 3]:
            continue
        if next((a.i for a in node.attribute if a.name == "keepdims"), 1):
            new = [helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], name=f"{node.name}_pool")]
        else:
            pooled = f"{node.output[0]}_pooled"
            new = [
                helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool"),
                helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1),
            ]
        graph.replace([node], new)
        return True
    return False


RULES: tuple[Callable[[RewriteGraph], bool], ...] = (strided_copy, global_average)
