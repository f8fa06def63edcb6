"""The latency model: what must hold of its estimates, whatever the constants."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from orchestrator.errors import InputError
from orchestrator.hardware.estimate import estimate_latency
from orchestrator.hardware.graph import count
from orchestrator.hardware.loading import load_profile
from orchestrator.values.profile import HardwareProfile


class Noise(CalibrationDataReader):
    """Two random examples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        self._left = [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


@pytest.fixture
def board(tmp_path: Path, profile_text: str) -> HardwareProfile:
    path = tmp_path / "board.toml"
    path.write_text(profile_text)
    return load_profile(str(path), {})


@pytest.fixture
def network(save_graph) -> Path:
    """Convolution, ReLU, residual convolution, pooling, fully connected."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    weights = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "b2": (32,), "w3": (10, 32), "b3": (10,)}
    return save_graph(nodes, {"x": ["batch", 3, 24, 24]}, ["y"], weights)


def quantized(model: Path, form: QuantFormat) -> Path:
    path = model.with_name(f"{form.name}.onnx")
    quantize_static(
        model, path, Noise((1, 3, 24, 24)), quant_format=form, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return path


def test_latency_is_the_roofline_when_there_is_one_convolution(save_graph, board) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    path = save_graph(nodes, {"x": [1, 64, 10, 10]}, ["y"], {"w": (64, 64, 1, 1)})
    estimate = estimate_latency(path, board, "onnxruntime", 1)
    assert estimate.unit == "ms"
    assert estimate.value == pytest.approx(1e3 * (64 * 64 * 100 / 1e9 + 1e-5))
    assert (estimate.low, estimate.high) == (pytest.approx(estimate.value / 1.5), pytest.approx(estimate.value * 1.5))
    assert "nothing" in estimate.model


def test_memory_traffic_is_the_latency_when_it_takes_longer_than_the_arithmetic(save_graph, board) -> None:
    path = save_graph([helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": [1, 500]}, ["y"], {"w": (500, 500)})
    traffic = 4 * (500 + 500 * 500 + 500)
    assert estimate_latency(path, board, "onnxruntime", 1).value == pytest.approx(1e3 * (traffic / 1e9 + 1e-5))


def test_depthwise_takes_its_own_rate_when_estimated(save_graph, board) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], group=64)]
    path = save_graph(nodes, {"x": [1, 64, 13, 13]}, ["y"], {"w": (64, 1, 7, 7)})
    assert estimate_latency(path, board, "onnxruntime", 1).value == pytest.approx(1e3 * (64 * 49 * 49 / 0.5e9 + 1e-5))


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_quantized_file_is_faster_when_its_arithmetic_is_int8(network, board, form) -> None:
    path = quantized(network, form)
    counted, plain = count(path), count(network)
    assert counted.macs == plain.macs
    assert counted.parameters == plain.parameters
    assert {o.number_format for o in counted.operators if o.macs} == {"int8"}
    assert counted.unknown == ()
    value = estimate_latency(path, board, "onnxruntime", 1).value
    assert value < 0.75 * estimate_latency(network, board, "onnxruntime", 1).value


def test_quantizers_are_free_when_they_stand_between_int8_operators(network) -> None:
    counted = count(quantized(network, QuantFormat.QDQ))
    left = [o.op_type for o in counted.operators if not o.free and o.fused_into is None]
    # Only the one behind the input and the one before the output do work of their own.
    assert left.count("QuantizeLinear") == 1
    assert left.count("DequantizeLinear") == 1


def test_arithmetic_stays_float_when_only_the_weights_are_quantized(save_graph) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"q": np.ones((8, 8), np.int8), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    counted = count(save_graph(nodes, {"x": [1, 8]}, ["y"], weights))
    assert [o.number_format for o in counted.operators if o.macs] == ["float32"]
    assert counted.parameters == 64


def test_dynamically_quantized_product_is_int8_when_estimated(save_graph, board) -> None:
    plain = save_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64, 256]}, ["y"], {"w": (256, 256)})
    path = plain.with_name("dynamic.onnx")
    quantize_dynamic(plain, path, weight_type=QuantType.QInt8)
    counted = count(path)
    assert [o.number_format for o in counted.operators if o.macs] == ["int8"]
    assert counted.macs == 64 * 256 * 256
    assert estimate_latency(path, board, "onnxruntime", 1).value < estimate_latency(plain, board, "onnxruntime", 1).value


def test_more_threads_are_faster_until_the_last_known_when_estimated(network, board) -> None:
    values = [estimate_latency(network, board, "onnxruntime", threads).value for threads in (1, 2, 4, 8)]
    assert values[0] > values[1] > values[2] == values[3]
    assert values[0] / values[2] < 3.0


def test_band_widens_upwards_when_an_operator_is_unknown(save_graph, board) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["c"])
    shape, weights = {"x": [1, 3, 8, 8]}, {"w": (4, 3, 1, 1)}
    known = save_graph([conv, helper.make_node("Softmax", ["c"], ["y"])], shape, ["y"], weights)
    plain = estimate_latency(known, board, "onnxruntime", 1)
    odd = save_graph([conv, helper.make_node("Wavelet", ["c"], ["y"], domain="com.example")], shape, ["y"], weights)
    estimate = estimate_latency(odd, board, "onnxruntime", 1)
    assert estimate.unknown == ("com.example::Wavelet",)
    assert estimate.low / estimate.value == pytest.approx(plain.low / plain.value)
    assert estimate.high / estimate.value > plain.high / plain.value


def test_reason_is_given_in_one_line_when_nothing_can_be_estimated(network, save_graph, board) -> None:
    with pytest.raises(InputError, match="profile 'board' has no cost model for the runtime 'ncnn'"):
        estimate_latency(network, board, "ncnn", 1)
    with pytest.raises(InputError, match="threads >= 1 must hold, but got 0"):
        estimate_latency(network, board, "onnxruntime", 0)
    alone = save_graph([helper.make_node("Wavelet", ["x"], ["y"], domain="com.example")], {"x": [1, 3]}, ["y"])
    with pytest.raises(InputError, match="knows none of the model's operators"):
        estimate_latency(alone, board, "onnxruntime", 1)


def test_number_format_is_named_when_the_cost_model_has_no_rate_for_it(network, board) -> None:
    model = onnx.load(str(network))
    half = network.with_name("half.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, str(half))
    with pytest.raises(InputError, match=r"no rate for float16, which Conv '\w+' needs; known: float32, int8"):
        estimate_latency(half, board, "onnxruntime", 1)
