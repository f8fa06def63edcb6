"""A small network as a description, and the builder of its ONNX model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSET = 17
IR_VERSION = 8  # supported by the runtimes of old boards
INPUT = "x"

Form = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A network to be measured.

    Attributes:
        shape: Shape of its input, batch axis first.
        build: Builds its ONNX model in float32 or float16.
        urgent: True if it is measured even with a short budget; these alone determine a fit.
    """

    name: str
    shape: tuple[int, ...]
    build: Callable[[Form], Any]
    urgent: bool = False


class Network:
    """A builder of one ONNX model; each method takes a tensor's name and returns that of its result."""

    def __init__(self, shape: Sequence[int], form: Form) -> None:
        self._form = form
        self._random = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._shape = tuple(shape)
        self._type = TensorProto.FLOAT if form == "float32" else TensorProto.FLOAT16

    def weight(self, shape: Sequence[int], scale: float = 1.0) -> str:
        """Add random normal weights."""
        values = (self._random.standard_normal(tuple(shape)) * scale).astype(self._form)
        return self._constant(values)

    def integers(self, *values: int) -> str:
        """Add a vector of integers: axes, sizes."""
        return self._constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one result."""
        result = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [result], f"{kind}_{len(self._nodes)}", **attributes))
        return result

    def conv(self, x: str, inside: int, outside: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> str:
        """Add a convolution with bias; only the stride changes the image size."""
        depth = inside // groups
        weights = self.weight((outside, depth, kernel, kernel), (depth * kernel * kernel) ** -0.5)
        return self.node(
            "Conv",
            x,
            weights,
            self.weight((outside,), 0.1),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def dense(self, x: str, inside: int, outside: int) -> str:
        """Add a fully connected layer."""
        return self.node("Gemm", x, self.weight((outside, inside), inside**-0.5), self.weight((outside,), 0.1), transB=1)

    def flat(self, x: str) -> str:
        """Add the mean over pixels, as a matrix of one row."""
        return self.node("Flatten", self.node("GlobalAveragePool", x))

    def model(self, result: str) -> Any:
        """Return the finished model."""
        graph = helper.make_graph(
            self._nodes,
            "characterization",
            [helper.make_tensor_value_info(INPUT, self._type, self._shape)],
            [helper.make_tensor_value_info(result, self._type, None)],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return shape_inference.infer_shapes(model, strict_mode=True)

    def _constant(self, values: np.ndarray) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values, name))
        return name
