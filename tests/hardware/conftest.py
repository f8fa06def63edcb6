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

[[cost_models]]
runtime = "onnxruntime"
macs_per_second = { float32 = 1e9, int8 = 2e9 }
depthwise_share = 0.5
bytes_per_second = 1e9
seconds_per_operator = 1e-5
thread_speedup = [1.8, 2.5, 3.0]
error = 1.5
fitted_on = "nothing"
source = "sheet"
"""


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
