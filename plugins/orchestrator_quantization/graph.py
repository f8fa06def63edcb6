"""An ONNX graph with its constants, and who makes and who reads each tensor. Loads onnx: imported where a file is at hand."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]

ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Elu"})
"""What runtimes compute inside the layer before it."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"})


class Graph:
    """A model that is changed in place.

    Args:
        model: `onnx.ModelProto`; its constants are initializers, its nodes have names (see `files.prepared`).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {output.name for output in model.graph.output}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._consumers[name].append(node)

    @property
    def nodes(self) -> list[Any]:
        """All nodes, in the order in which they are computed."""
        return list(self.model.graph.node)

    def array(self, name: str) -> Array:
        """The value of a constant."""
        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def constant(self, node: Any, place: int) -> Array | None:
        """The float constant that a node reads there; None: it reads none."""
        tensor = self._constants.get(node.input[place]) if place < len(node.input) else None
        return self.array(tensor.name) if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT else None

    def only(self, node: Any, place: int) -> bool:
        """Whether no other node reads what this one reads there, so that it may be changed."""
        return len(self._consumers[node.input[place]]) == 1 and node.input[place] not in self._outputs

    def replace(self, name: str, array: Array) -> None:
        """Another value for a constant."""
        self._constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def add(self, name: str, array: Array) -> str:
        """A new constant; its name, which is the wished one where that is free."""
        while name in self._constants or name in self.producers:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._constants[name] = self.model.graph.initializer[-1]
        return name

    def prune(self) -> None:
        """Drop the constants that nobody reads any more."""
        read = {name for node in self.nodes for name in node.input} | self._outputs
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        self._constants = {tensor.name: tensor for tensor in self.model.graph.initializer}

    def sort(self) -> None:
        """Put the nodes in the order in which they can be computed, as the standard asks."""
        waiting = self.nodes
        made = {name for node in waiting for name in node.output}
        ordered = []
        while waiting:
            ready = [node for node in waiting if not any(name in made for name in node.input)]
            if not ready:
                raise ValueError("the graph has a cycle")
            made -= {name for node in ready for name in node.output}
            ordered += ready
            chosen = {id(node) for node in ready}
            waiting = [node for node in waiting if id(node) not in chosen]
        del self.model.graph.node[:]
        self.model.graph.node.extend(ordered)

    def weights(self) -> int:
        """Elements of all float constants."""
        return sum(math.prod(t.dims) for t in self._constants.values() if t.data_type == onnx.TensorProto.FLOAT)

    def follower(self, node: Any) -> Any | None:
        """The one node that reads this node's one output and nobody else does; None: there is no such node."""
        readers = self._consumers[node.output[0]]
        alone = len(readers) == 1 and len(node.output) == 1 and node.output[0] not in self._outputs
        return readers[0] if alone else None

    def layers(self) -> list[Any]:
        """The nodes that hold weights: convolutions, matrix products and embedding tables."""
        return [
            node
            for node in self.nodes
            if node.op_type in LAYERS and self.constant(node, 0 if node.op_type == "Gather" else 1) is not None
        ]

    def first_convolutions(self) -> list[Any]:
        """The convolutions between which and the network's inputs no weight stands."""
        weighted = {node.name for node in self.layers()}
        behind: set[str] = set()
        found = []
        for node in self.nodes:
            late = any(name in behind for name in node.input)
            if node.op_type == "Conv" and node.name in weighted and not late:
                found.append(node)
            if late or node.name in weighted:
                behind.update(node.output)
        return found

    def with_activations(self, names: set[str]) -> set[str]:
        """Those nodes and the activation functions right behind them."""
        found = set(names)
        for node in self.nodes:
            follower = self.follower(node) if node.name in found else None
            if follower is not None and follower.op_type in ACTIVATIONS:
                found.add(follower.name)
        return found
