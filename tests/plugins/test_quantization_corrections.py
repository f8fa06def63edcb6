"""Equalisation and bias correction: exact in float, and closer in integers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.plugin.onnx_graph import OnnxGraph
from orchestrator.plugin.parameters import checked
from orchestrator_quantization.equalisation import equalise, scalable_pairs
from orchestrator_quantization.model_files import load_graph
from orchestrator_quantization.sensitivity import distance
from orchestrator_quantization.static_int8 import StaticInt8

STATIC = StaticInt8()


def written(path: Path, nodes: list[Any], constants: dict[str, Any], channels: int = 3) -> Path:
    """A file with one image of `channels` and one output `out`."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def uneven(path: Path) -> Path:
    """Convolution, depthwise convolution, grouped convolution; the first one's channels differ by a factor of 500."""
    random = np.random.default_rng(0)
    spread = np.geomspace(0.02, 10, 8).reshape(-1, 1, 1, 1)
    make = helper.make_node
    nodes = [
        make("Conv", ["image", "w0", "b0"], ["c0"], "first", pads=[1, 1, 1, 1]),
        make("Relu", ["c0"], ["r0"], "relu0"),
        make("Conv", ["r0", "w1", "b1"], ["c1"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        make("LeakyRelu", ["c1"], ["r1"], "relu1", alpha=0.1),
        make("MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p1", "w2"], ["c2"], "grouped", group=2),
        make("GlobalAveragePool", ["c2"], ["g"], "mean"),
        make("Flatten", ["g"], ["out"], "flat"),
    ]
    constants = {
        "w0": random.standard_normal((8, 3, 3, 3)) * spread,
        "b0": random.standard_normal(8),
        "w1": random.standard_normal((8, 1, 3, 3)),
        "b1": random.standard_normal(8),
        "w2": random.standard_normal((6, 4, 1, 1)) / spread[:4, 0][None, :, :, :],
    }
    return written(path, nodes, constants)


def model(graph: OnnxGraph, path: Path) -> Path:
    onnx.save(graph.model, str(path))
    return path


def span(graph: OnnxGraph, weight: str) -> float:
    """How much the largest channel of a weight exceeds the smallest."""
    largest = np.abs(graph.array(weight)).reshape(len(graph.array(weight)), -1).max(1)
    return float(largest.max() / largest.min())


def test_equalisation_leaves_float_outputs_and_levels_channels(run: Any, tmp_path: Path) -> None:
    path = uneven(tmp_path / "uneven.onnx")
    graph = OnnxGraph(onnx.load(str(path)))
    image = {"image": np.random.default_rng(1).standard_normal((4, 3, 8, 8), dtype=np.float32)}
    before, spread = run(path, image)[0], span(graph, "w0")
    assert [(a.name, b.name) for a, b in scalable_pairs(graph)] == [("first", "depthwise"), ("depthwise", "grouped")]
    assert equalise(graph) == 2
    np.testing.assert_allclose(run(model(graph, tmp_path / "level.onnx"), image)[0], before, rtol=1e-4, atol=1e-4)
    assert span(graph, "w0") < 0.1 * spread


@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn"])
def test_equalisation_leaves_float_outputs_of_whole_networks(
    network: str, make_case: Any, exported: Any, run: Any, tmp_path: Path
) -> None:
    case = make_case(network)
    graph = load_graph(exported(network), case.context(tmp_path), "x")
    assert equalise(graph) >= 1
    got = run(model(graph, tmp_path / "level.onnx"), case.inputs)[0]
    np.testing.assert_allclose(got, run(exported(network), case.inputs)[0], rtol=1e-3, atol=1e-5)


def test_equalisation_brings_integers_with_one_scale_closer(make_case: Any, run: Any, tmp_path: Path) -> None:
    path, case = uneven(tmp_path / "uneven.onnx"), make_case("plain-cnn")
    expected, moved = run(path, case.inputs), []
    for chosen in (False, True):
        values = checked("x", STATIC.parameters, {"granularity": "tensor", "equalisation": chosen})
        made = STATIC.transform(path, values, case.context(tmp_path / f"work{chosen}"))
        moved.append(distance(expected, run(made, case.inputs)))
    assert moved[1] < 0.5 * moved[0]


def test_channels_that_others_read_or_clip_are_no_pair(tmp_path: Path) -> None:
    make, weight = helper.make_node, np.ones((3, 3, 1, 1))
    clipped = [
        make("Conv", ["image", "w0"], ["c"], "first"),
        make("Clip", ["c", "low", "high"], ["r"], "relu6"),
        make("Conv", ["r", "w1"], ["out"], "second"),
    ]
    constants = {"w0": weight, "w1": weight, "low": 0.0, "high": 6.0}
    assert not scalable_pairs(OnnxGraph(onnx.load(str(written(tmp_path / "clip.onnx", clipped, constants)))))
    shared = [
        make("Conv", ["image", "w0"], ["c"], "first"),
        make("Conv", ["c", "w1"], ["d"], "second"),
        make("Add", ["c", "d"], ["out"], "shortcut"),
    ]
    assert not scalable_pairs(OnnxGraph(onnx.load(str(written(tmp_path / "add.onnx", shared, {"w0": weight, "w1": weight})))))
    tied = [make("Conv", ["image", "w0"], ["c"], "first"), make("Conv", ["c", "w0"], ["out"], "second")]
    assert not scalable_pairs(OnnxGraph(onnx.load(str(written(tmp_path / "tied.onnx", tied, {"w0": weight})))))


def test_dead_channels_do_not_hinder_equalisation(run: Any, tmp_path: Path) -> None:
    first, second = np.ones((3, 3, 1, 1)), np.ones((3, 3, 1, 1))
    first[0], second[:, 1] = 0, 0
    first[2] = 100
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c"], "first"),
        helper.make_node("Conv", ["c", "w1"], ["out"], "second"),
    ]
    path = written(tmp_path / "dead.onnx", nodes, {"w0": first, "w1": second})
    graph = OnnxGraph(onnx.load(str(path)))
    assert equalise(graph) == 1
    image = {"image": np.random.default_rng(1).standard_normal((2, 3, 8, 8), dtype=np.float32)}
    np.testing.assert_allclose(run(model(graph, tmp_path / "level.onnx"), image)[0], run(path, image)[0], rtol=1e-5, atol=1e-4)


def biased(path: Path, operator: str) -> Path:
    """One layer whose weights all lie 0.4 of a step above an integer, after inputs that are all positive."""
    random = np.random.default_rng(0)
    weight = random.integers(-100, 100, (8, 27)) + 0.4
    weight[:, 0] = 127
    weight /= 127
    make = helper.make_node
    before = [make("Relu", ["image"], ["r"], "relu")]
    if operator == "Conv":
        layer = [make("Conv", ["r", "w"], ["c"], "layer"), make("GlobalAveragePool", ["c"], ["out"], "mean")]
        weights = {"w": weight.reshape(8, 3, 3, 3)}
    else:
        before += [make("GlobalAveragePool", ["r"], ["g"], "pool"), make("Flatten", ["g"], ["f"], "flat")]
        layer = {
            "Gemm": [make("Gemm", ["f", "w", "b"], ["out"], "layer", transB=1)],
            "Gemm-unbiased": [make("Gemm", ["f", "w"], ["out"], "layer", transB=1)],
            "MatMul": [make("MatMul", ["f", "w"], ["m"], "layer"), make("Add", ["b", "m"], ["out"], "bias")],
        }[operator]
        held = np.concatenate([weight[:, :2], np.full((8, 1), 1.0)], 1)
        weights = {"w": held.T if operator == "MatMul" else held}
        weights |= {} if operator == "Gemm-unbiased" else {"b": np.ones(8)}
    return written(path, [*before, *layer], weights)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("operator", ["Conv", "Gemm", "Gemm-unbiased", "MatMul"])
def test_bias_correction_takes_the_mean_error_away(operator: str, form: str, make_case: Any, run: Any, tmp_path: Path) -> None:
    path, case = biased(tmp_path / "biased.onnx", operator), make_case("plain-cnn")
    expected, errors = run(path, case.inputs)[0], []
    for chosen in (False, True):
        values = checked("x", STATIC.parameters, {"bias_correction": chosen, "form": form})
        made = STATIC.transform(path, values, case.context(tmp_path / f"work{chosen}"))
        difference = run(made, case.inputs)[0] - expected
        errors.append(float(np.abs(difference.reshape(len(difference), -1).mean(0)).mean()))
    assert errors[1] < 0.6 * errors[0]


def test_bias_that_layers_share_is_corrected_for_each_alone(make_case: Any, run: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b"], ["c"], "first"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w1", "b"], ["out"], "second"),
    ]
    weights = {f"w{k}": random.standard_normal((3, 3, 1, 1)) for k in (0, 1)}
    path, case = written(tmp_path / "shared.onnx", nodes, {**weights, "b": np.ones(3)}), make_case("plain-cnn")
    values = checked("x", STATIC.parameters, {"bias_correction": True})
    graph = onnx.load(str(STATIC.transform(path, values, case.context(tmp_path / "work")))).graph
    first, second = [node for node in graph.node if node.op_type == "Conv"]
    assert first.input[2] != second.input[2]
