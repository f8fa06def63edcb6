"""ONNX graphs with lookups by name, and inference sessions on the CPU. Imports onnx and onnxruntime; plugins import it on use."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper

if TYPE_CHECKING:
    from orchestrator.plugin.method import BuildContext

Array = npt.NDArray[Any]


class OnnxGraph:
    """A model that is changed in place, with its constants, and the producer and consumers of each tensor.

    Constants are initializers and the values of Constant nodes. The lookups are those of the time of construction, except that
    new constants are included.

    Args:
        model: An `onnx.ModelProto`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.outputs = {output.name for output in model.graph.output}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            for name in node.input:
                self.consumers[name].append(node)
            if node.op_type == "Constant" and isinstance(attribute(node, "value", None), onnx.TensorProto):
                self._constants[node.output[0]] = attribute(node, "value", None)

    @property
    def nodes(self) -> list[Any]:
        """All nodes in the order of computation."""
        return list(self.model.graph.node)

    @nodes.setter
    def nodes(self, nodes: Sequence[Any]) -> None:
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def array(self, name: str) -> Array:
        """Return the value of a constant."""
        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def constant(self, node: Any, place: int) -> Array | None:
        """Return the constant that a node reads at that input; None if it reads none."""
        tensor = self._constants.get(node.input[place]) if place < len(node.input) else None
        return None if tensor is None else self.array(node.input[place])

    def weight(self, node: Any, place: int) -> Array | None:
        """Return the float32 constant that a node reads at that input; None if it reads none."""
        array = self.constant(node, place)
        return array if array is not None and array.dtype == np.float32 else None

    def is_only_reader(self, node: Any, place: int) -> bool:
        """Return True if no other node reads that input, so that it may change."""
        return len(self.consumers[node.input[place]]) == 1 and node.input[place] not in self.outputs

    def follower(self, node: Any) -> Any | None:
        """Return the only reader of a node's only output; None if there are others."""
        readers = self.consumers[node.output[0]]
        return readers[0] if len(node.output) == len(readers) == 1 and node.output[0] not in self.outputs else None

    def set_constant(self, name: str, array: Array) -> None:
        """Change the value of a constant."""
        self._constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def add_constant(self, name: str, array: Array) -> str:
        """Add a constant; return its name, with underscores appended if the name is in use."""
        while name in self._constants or name in self.producers:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._constants[name] = self.model.graph.initializer[-1]
        return name

    def remove_unused_constants(self) -> None:
        """Remove the initializers that no node reads, and their entries among the inputs of old files."""
        used = {name for node in self.nodes for name in node.input} | self.outputs
        unused = {tensor.name for tensor in self.model.graph.initializer} - used
        for values in (self.model.graph.initializer, self.model.graph.input):
            for value in [value for value in values if value.name in unused]:
                values.remove(value)
        self._constants = {name: tensor for name, tensor in self._constants.items() if name not in unused}

    def float_elements(self) -> int:
        """Return the number of elements of all float32 initializers."""
        return sum(math.prod(t.dims) for t in self.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return an attribute of a node, or the default if it has none of that name."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def cpu_session(model: Path | bytes, *, optimise: bool = True, threads: int = 0) -> Any:
    """Return an onnxruntime session on the CPU that logs errors only.

    Args:
        model: Path or content of an ONNX file.
        optimise: False for basic optimisations only: quantized operators are then computed in float.
        threads: Number of threads; 0: onnxruntime's default.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def example_outputs(path: Path, context: "BuildContext") -> list[Array]:
    """Return the outputs of a file for the task's example, or for as many examples of it as the file's fixed batch has."""
    session = cpu_session(path, threads=1)
    inputs = session.get_inputs()
    batch = next((i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], int)), None)
    feeds: Mapping[str, Array] = {i.name: context.example[i.name].detach().cpu().numpy()[:batch] for i in inputs}
    return list(session.run(None, feeds))
