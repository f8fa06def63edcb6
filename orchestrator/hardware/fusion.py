"""Graph transformations of a runtime: constant folding, fusion of activations, removal of quantizers.

The rules are those that onnxruntime documents for its CPU provider and that the common mobile runtimes share:
https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
"""

from collections import defaultdict
from collections.abc import Iterator
from math import prod
from typing import Any

import onnx

from orchestrator.hardware.operators import (
    ACTIVATIONS,
    FREE_OPERATORS,
    GATES,
    INT8_OPERATORS,
    MAC_OPERATORS,
    QUANTIZERS,
    WEIGHT_INPUT,
)
from orchestrator.hardware.shapes import ShapedGraph, TensorType

_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


class Fusion:
    """The runtime's view of one graph; nodes are identified by their position, because ONNX names are optional."""

    def __init__(self, graph: ShapedGraph) -> None:
        self._graph = graph
        self._names = {id(n): n.name or f"{n.op_type}_{i}" for i, n in enumerate(graph.nodes)}
        self._producer = {o: n for n in graph.nodes for o in n.output if o}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.nodes:
            for name in set(node.input):
                self._consumers[name].append(node)
        self.stored_constants, self.constants = self._find_constants()
        self._root: dict[int, Any] = {}
        self._members: dict[int, list[Any]] = {}
        self._end: dict[int, str] = {}
        for node in graph.nodes:
            if node.op_type in MAC_OPERATORS and not self._is_constant(node):
                self._fuse_behind(node)

    def name(self, node: Any) -> str:
        """Return the node's name, generated if the file has none."""
        return self._names[id(node)]

    def root(self, node: Any) -> Any | None:
        """Return the operator that this one is fused into, or None."""
        return self._root.get(id(node))

    def is_free(self, node: Any) -> bool:
        """Return True if the node is computed once at load time, or is a quantizer that the runtime removes."""
        if self._is_constant(node):
            return True
        if node.op_type == "QuantizeLinear":
            producer = self._past_views(node.input[0])
            if producer is None:
                return False
            return producer.op_type == "DequantizeLinear" or self.is_int8(self._root.get(id(producer), producer))
        if node.op_type == "DequantizeLinear" and node.output[0] not in self._graph.outputs:
            consumers = list(self._used_by(node.output[0]))
            return bool(consumers) and all(c.op_type == "QuantizeLinear" or self.is_int8(c) for c in consumers)
        return False

    def is_int8(self, node: Any) -> bool:
        """Return True if the node computes on 8-bit integers: by its name, or because quantizers surround it (QDQ)."""
        kind = node.op_type
        if kind in INT8_OPERATORS:
            return True
        if kind in QUANTIZERS or kind in FREE_OPERATORS or self._is_constant(node) or not node.input:
            return False
        positions = (0, WEIGHT_INPUT[kind]) if kind in MAC_OPERATORS else range(len(node.input))
        inputs = [node.input[p] for p in positions if node.input[p]]
        if kind not in MAC_OPERATORS:
            inputs = [i for i in inputs if i not in self.constants]
        if not inputs or not all(self._dequantized(i) for i in inputs):
            return False
        # Matrix products may return floats (MatMulIntegerToFloat, QGemm); every other integer kernel returns integers.
        return kind in ("MatMul", "Gemm") or all(self._quantized(o) is not None for o in self.results(node))

    def operands(self, node: Any) -> list[str]:
        """Return the tensors that the node and its fused operators read from memory."""
        own = [i for i in node.input if i]
        inside = {o for member in self._members.get(id(node), ()) for o in member.output} | set(node.output)
        return own + [i for m in self._members.get(id(node), ()) for i in m.input if i and i not in inside]

    def results(self, node: Any) -> list[str]:
        """Return the tensors that the node with its fused operators writes to memory."""
        return [self._end[id(node)]] if id(node) in self._end else [o for o in node.output if o]

    def stored(self, tensor: str) -> TensorType | None:
        """Return the tensor in memory for an integer kernel: the input of a dequantizer, if there is one."""
        return self._dequantized(tensor) or self._graph.tensors.get(tensor)

    def stored_result(self, tensor: str) -> TensorType | None:
        """Return the result in memory: the output of a quantizer, if there is one."""
        return self._quantized(tensor) or self._graph.tensors.get(tensor)

    def _find_constants(self) -> tuple[frozenset[str], frozenset[str]]:
        """Find stored constants, and everything that follows from constants and shapes alone."""
        stored = set(self._graph.initializers)
        every = set(stored)
        for node in self._graph.nodes:
            inputs = [i for i in node.input if i]
            if node.op_type == "Constant" or (node.op_type == "ConstantOfShape" and inputs[0] in every):
                stored.update(node.output)
                every.update(node.output)
            elif node.op_type in ("Shape", "Size") or (inputs and all(i in every for i in inputs)):
                every.update(node.output)
        return frozenset(stored), frozenset(every)

    def _is_constant(self, node: Any) -> bool:
        return all(o in self.constants for o in node.output if o)

    def _fuse_behind(self, root: Any) -> None:
        """Fuse the only use of the result as long as it is an elementwise operator."""
        members: list[Any] = []
        end, residual = root.output[0], False
        while end and end not in self._graph.outputs:
            users = self._consumers[end]
            taken = self._gate(end, users)
            if not taken and len(users) == 1 and id(users[0]) not in self._root:
                user = users[0]
                others = [i for i in user.input if i and i != end]
                scaled = user.op_type in ("Add", "Mul") and len(others) == 1 and others[0] in self.constants
                # Dynamic quantization writes its scaling out as Cast and Mul; onnxruntime makes one operator of the three.
                rescaled = root.op_type == "MatMulInteger" and user.op_type in ("Cast", "Mul")
                if scaled or rescaled or user.op_type in ACTIVATIONS | {"BatchNormalization"}:
                    taken = [user]
                elif user.op_type == "Add" and len(others) == 1 and not residual and self._same_shape(end, others[0]):
                    taken, residual = [user], True
            if not taken:
                break
            members += taken
            end = taken[-1].output[0]
            self._root |= {id(node): root for node in taken}
        if members:
            self._members[id(root)] = members
            self._end[id(root)] = end

    def _gate(self, tensor: str, users: list[Any]) -> list[Any]:
        """Return the two nodes of x * sigmoid(x), which runtimes compute in one pass (Swish)."""
        if len(users) != 2:
            return []
        gate = next((u for u in users if u.op_type in GATES), None)
        product = next((u for u in users if u.op_type == "Mul"), None)
        if gate is None or product is None or set(product.input) != {tensor, gate.output[0]}:
            return []
        alone = len(self._consumers[gate.output[0]]) == 1 and gate.output[0] not in self._graph.outputs
        return [gate, product] if alone else []

    def _same_shape(self, one: str, other: str) -> bool:
        a, b = self._graph.tensors.get(one), self._graph.tensors.get(other)
        return a is not None and b is not None and a.shape == b.shape

    def _past_views(self, tensor: str) -> Any | None:
        """Return the node that computes a tensor, through views."""
        node = self._producer.get(tensor)
        while node is not None and node.op_type in _VIEWS:
            node = self._producer.get(node.input[0])
        return node

    def _used_by(self, tensor: str) -> Iterator[Any]:
        """Return the nodes that use a tensor, through views."""
        for node in self._consumers[tensor]:
            if node.op_type in _VIEWS:
                yield from self._used_by(node.output[0])
            else:
                yield node

    def _dequantized(self, tensor: str) -> TensorType | None:
        """Return the 8-bit input of a dequantizer, or None."""
        node = self._past_views(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self._eight_bits(node.input[0])

    def _quantized(self, tensor: str) -> TensorType | None:
        """Return the 8-bit tensor of a result's quantizers, if nothing else uses the result."""
        users = list(self._used_by(tensor))
        if not users or tensor in self._graph.outputs or any(u.op_type != "QuantizeLinear" for u in users):
            return None
        return self._eight_bits(users[0].output[0])

    def _eight_bits(self, tensor: str) -> TensorType | None:
        found = self._graph.tensors.get(tensor)
        return found if found is not None and found.dtype in _EIGHT_BITS and prod(found.shape) > 0 else None
