"""Layers of an ONNX graph that quantization applies to."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.plugin.onnx_graph import OnnxGraph

ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Elu"})
"""Operators that runtimes fuse into the layer before them."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"})


def weighted_layers(graph: "OnnxGraph") -> list[Any]:
    """Return the nodes with constant weights: convolutions, matrix products and embedding tables."""
    nodes = [node for node in graph.nodes if node.op_type in LAYERS]
    return [node for node in nodes if graph.weight(node, 0 if node.op_type == "Gather" else 1) is not None]


def first_convolutions(graph: "OnnxGraph") -> list[Any]:
    """Return the convolutions with no other layer between them and the network's inputs."""
    weighted = {node.name for node in weighted_layers(graph)}
    behind: set[str] = set()
    first = []
    for node in graph.nodes:
        late = any(name in behind for name in node.input)
        if node.op_type == "Conv" and node.name in weighted and not late:
            first.append(node)
        if late or node.name in weighted:
            behind.update(node.output)
    return first


def with_activations(graph: "OnnxGraph", names: set[str]) -> set[str]:
    """Return the names of those nodes and of the activation functions that follow them."""
    followers = [graph.follower(node) for node in graph.nodes if node.name in names]
    return names | {follower.name for follower in followers if follower is not None and follower.op_type in ACTIVATIONS}
