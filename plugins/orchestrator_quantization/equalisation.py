"""Cross-layer equalisation (Nagel et al. 2019, section 4.1).

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction".

Between two convolutions with only a positively homogeneous function in between, f(s x) = s f(x) for s > 0, a channel can be
scaled down by s in the first and up by s in the second. The network computes the same, and the ranges of the channels' weights
become similar, so that one scale fits all. Imports onnx; imported on use.
"""

from typing import Any

import numpy as np

from orchestrator.plugin.onnx_graph import Array, OnnxGraph, attribute

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool"})
"""Functions of one channel that commute with a positive factor. A ReLU6 (Clip) does not."""

ROUNDS = 20
SETTLED = 1e-3
"""Change of the factors, as a share, below which the iteration ends."""

LARGEST_FACTOR = 2.0**10


def scalable_pairs(graph: OnnxGraph) -> list[tuple[Any, Any]]:
    """Return the pairs of convolutions whose channels can be scaled against each other, in the order of computation."""
    pairs = []
    for first in graph.nodes:
        second = graph.follower(first) if _changeable(graph, first) else None
        while second is not None and second.op_type in HOMOGENEOUS:
            second = graph.follower(second)
        if second is not None and _changeable(graph, second):
            pairs.append((first, second))
    return pairs


def equalise(graph: OnnxGraph) -> int:
    """Scale the channels of all pairs in place until their ranges agree; return the number of pairs."""
    pairs = scalable_pairs(graph)
    for _ in range(ROUNDS if pairs else 0):
        if max(_equalise_pair(graph, first, second) for first, second in pairs) < SETTLED:
            break
    return len(pairs)


def _changeable(graph: OnnxGraph, node: Any) -> bool:
    """Return True if a node is a convolution whose constant weights and bias no other node reads."""
    if node.op_type != "Conv" or graph.weight(node, 1) is None or not graph.is_only_reader(node, 1):
        return False
    biased = len(node.input) > 2 and bool(node.input[2])
    return not biased or (graph.weight(node, 2) is not None and graph.is_only_reader(node, 2))


def _equalise_pair(graph: OnnxGraph, first: Any, second: Any) -> float:
    """Scale one pair; return the largest absolute logarithm of a factor."""
    weight, other = graph.array(first.input[1]), graph.array(second.input[1])
    outgoing = np.abs(weight).reshape(len(weight), -1).max(1)
    incoming = _by_input(np.abs(other), attribute(second, "group", 1)).max(1)
    live = (outgoing > 0) & (incoming > 0)  # a channel of zeros has no range
    factor = np.ones(len(weight))
    factor[live] = np.sqrt(outgoing[live].astype(np.float64) / incoming[live])
    factor = factor.clip(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    graph.set_constant(first.input[1], (weight / _column(factor, weight.ndim)).astype(np.float32))
    if len(first.input) > 2 and first.input[2]:
        graph.set_constant(first.input[2], (graph.array(first.input[2]) / factor).astype(np.float32))
    groups, width = attribute(second, "group", 1), other.shape[1]
    # Output channels of group g read the input channels g * width, ..., (g + 1) * width - 1.
    blocks = np.repeat(factor.reshape(groups, 1, width), len(other) // groups, axis=1).reshape(len(other), width)
    graph.set_constant(second.input[1], (other * blocks.reshape(*blocks.shape, *[1] * (other.ndim - 2))).astype(np.float32))
    return float(np.abs(np.log(factor)).max())


def _by_input(weight: Array, groups: int) -> Array:
    """Return the weights of a convolution, shape (out, in / groups, ...), as one row for each input channel."""
    width = weight.shape[1]
    split = weight.reshape(groups, len(weight) // groups, width, -1)
    return np.moveaxis(split, 2, 1).reshape(groups * width, -1)


def _column(factor: Array, dimensions: int) -> Array:
    return factor.reshape(-1, *[1] * (dimensions - 1))
