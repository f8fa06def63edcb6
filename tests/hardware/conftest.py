"""Small ONNX files and profile files made in code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SaveGraph = Callable[..., Path]

PROFILE = """\
schema = 1
name = "board"
title = "A board"
kind = "edge"
aliases = ["plank"]

[sources]
sheet = "data sheet"

[[clusters]]
name = "big"
cores = 4
clock_hz = 1.5e9
isa = ["neon"]
source = "sheet"

[memory]
size_bytes = 1_000_000
source = "sheet"

[[runtimes]]
name = "onnxruntime"
threads = 4
formats = ["float32", "int8"]
int8_schemes = ["u8s8"]
channel_multiple = { float32 = 4 }
source = "sheet"
"""

LATENCY_MODEL = """
[[latency_models]]
runtime = "onnxruntime"
number_format = "{number_format}"
threads = {threads}
nanoseconds = {{ {nanoseconds} }}
error = {error}
fitted_on = "{fitted_on}"
source = "sheet"
"""
ARITHMETIC = ["pointwise", "convolution", "image", "winograd", "winograd_transform", "matmul"]
DEPTHWISE = ["depthwise", "depthwise_strided"]
TRAFFIC = ["activation", "weight", "winograd_weight", "fused", "unpacked", "spilled", "pool"]
COPIES = ["dense", "elementwise", "move"]
FUNCTIONS = ["exponential", "normalization"]


def latency_model(number_format: str, threads: int, costs: Sequence[float], error: float, fitted_on: str) -> str:
    """A table with these nanoseconds for the five groups of features; 100 for a group, 10,000 for an operator."""
    prices = {"group": 100.0, "operator": 10000.0}
    for names, cost in zip((ARITHMETIC, DEPTHWISE, TRAFFIC, COPIES, FUNCTIONS), costs, strict=True):
        prices |= dict.fromkeys(names, cost)
    written = ", ".join(f"{name} = {cost}" for name, cost in prices.items())
    return LATENCY_MODEL.format(
        number_format=number_format, threads=threads, nanoseconds=written, error=error, fitted_on=fitted_on
    )


PROFILE += latency_model("float32", 1, (1.0, 2.0, 1.0, 4.0, 9.0), 1.5, "nothing")
PROFILE += latency_model("float32", 4, (0.4, 0.8, 0.7, 2.0, 3.0), 1.5, "nothing")
PROFILE += latency_model("int8", 1, (0.5, 1.0, 0.5, 1.0, 9.0), 2.0, "guesses")


@pytest.fixture
def profile_text() -> str:
    """A profile that keeps every law; tests break one at a time."""
    return PROFILE


@pytest.fixture
def save_graph(tmp_path: Path) -> SaveGraph:
    """Write a graph of these nodes: `inputs` and `outputs` by shape, `weights` by shape (random float32) or array."""

    def save(
        nodes: Sequence[Any],
        inputs: dict[str, Sequence[int | str]],
        outputs: Sequence[str],
        weights: dict[str, Any] | None = None,
        name: str = "model.onnx",
        **options: Any,
    ) -> Path:
        random = np.random.default_rng(0)
        arrays = {
            key: value if isinstance(value, np.ndarray) else random.normal(size=value).astype(np.float32)
            for key, value in (weights or {}).items()
        }
        graph = helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, None) for key in outputs],
            [numpy_helper.from_array(value, key) for key, value in arrays.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        path = tmp_path / name
        onnx.save(model, str(path), **options)
        return path

    return save
