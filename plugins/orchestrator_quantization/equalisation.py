"""Cross-layer equalisation (Nagel et al. 2019, section 4.1).

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction".

Between two convolutions with nothing but a positively homogeneous function in between, f(s x) = s f(x) for s > 0, a channel may
be made s times smaller by the first and s times larger by the second. The network computes the same, and the channels' weights
come to ranges alike, so that one scale serves them all. Loads onnx: imported where a file is at hand.
"""

from typing import Any

import numpy as np

from orchestrator_quantization.graph import Array, Graph

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool"})
"""Functions of one channel that commute with a positive factor. A ReLU6 (Clip) does not."""

ROUNDS = 20
SETTLED = 1e-3
"""A round that changes no factor by more than this share is the last one."""

LARGEST_FACTOR = 2.0**10


def pairs(graph: Graph) -> list[tuple[Any, Any]]:
    """Convolutions whose channels may be scaled against each other, in the order of computation: `[(first, second)]`."""
    found = []
    for first in graph.nodes:
        second = graph.follower(first) if _changeable(graph, first) else None
        while second is not None and second.op_type in HOMOGENEOUS:
            second = graph.follower(second)
        if second is not None and _changeable(graph, second):
            found.append((first, second))
    return found


def equalise(graph: Graph) -> int:
    """Scale the channels of all pairs in place until their ranges agree.

    Returns:
        Pairs of convolutions that were equalised.
    """
    found = pairs(graph)
    for _ in range(ROUNDS if found else 0):
        if max(_equalise_pair(graph, first, second) for first, second in found) < SETTLED:
            break
    return len(found)


def _changeable(graph: Graph, node: Any) -> bool:
    """Whether a node is a convolution with weights, and a bias if any, that are its own."""
    if node.op_type != "Conv" or graph.constant(node, 1) is None or not graph.only(node, 1):
        return False
    biased = len(node.input) > 2 and bool(node.input[2])
    return not biased or (graph.constant(node, 2) is not None and graph.only(node, 2))


def _equalise_pair(graph: Graph, first: Any, second: Any) -> float:
    """One step on one pair; how far the largest or the smallest factor is from 1, as a share."""
    weight, other = graph.array(first.input[1]), graph.array(second.input[1])
    outgoing = np.abs(weight).reshape(len(weight), -1).max(1)
    incoming = _by_input(np.abs(other), _groups(second)).max(1)
    live = (outgoing > 0) & (incoming > 0)  # a channel of zeros has no range
    factor = np.ones(len(weight))
    factor[live] = np.sqrt(outgoing[live].astype(np.float64) / incoming[live])
    factor = factor.clip(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    graph.replace(first.input[1], (weight / _column(factor, weight.ndim)).astype(np.float32))
    if len(first.input) > 2 and first.input[2]:
        graph.replace(first.input[2], (graph.array(first.input[2]) / factor).astype(np.float32))
    groups, width = _groups(second), other.shape[1]
    # Output channels of group g read the input channels g * width, ..., (g + 1) * width - 1.
    blocks = np.repeat(factor.reshape(groups, 1, width), len(other) // groups, axis=1).reshape(len(other), width)
    graph.replace(second.input[1], (other * blocks.reshape(*blocks.shape, *[1] * (other.ndim - 2))).astype(np.float32))
    return float(np.abs(np.log(factor)).max())


def _by_input(weight: Array, groups: int) -> Array:
    """Weights of a convolution, shape (out, in / groups, ...), one row for each input channel."""
    width = weight.shape[1]
    split = weight.reshape(groups, len(weight) // groups, width, -1)
    return np.moveaxis(split, 2, 1).reshape(groups * width, -1)


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _column(factor: Array, dimensions: int) -> Array:
    return factor.reshape(-1, *[1] * (dimensions - 1))
