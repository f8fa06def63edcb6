"""The latency model: what must hold of its estimates, whatever the constants."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from orchestrator.errors import InputError
from orchestrator.hardware.estimate import estimate, estimate_latency
from orchestrator.hardware.features import features
from orchestrator.hardware.graph import count
from orchestrator.hardware.profile_file import load_profile
from orchestrator.values.profile import HardwareProfile

SHARED = {"weight", "winograd_weight", "operator"}  # however many examples there are


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


def test_latency_is_the_sum_of_priced_features_when_there_is_one_convolution(save_graph, board) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    path = save_graph(nodes, {"x": [1, 64, 10, 10]}, ["y"], {"w": (64, 64, 1, 1)})
    found = estimate_latency(path, board, "onnxruntime", 1)
    assert found.unit == "ms"
    nanoseconds = 64 * 64 * 100 + 2 * 64 * 100 + 64 * 64 + 10_000
    assert found.value == pytest.approx(nanoseconds / 1e6)
    assert (found.low, found.high) == (pytest.approx(found.value / 1.5), pytest.approx(found.value * 1.5))
    assert "nothing" in found.model


def test_weights_are_streamed_when_a_layer_is_fully_connected(save_graph, board) -> None:
    path = save_graph([helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": [1, 500]}, ["y"], {"w": (500, 500)})
    assert estimate_latency(path, board, "onnxruntime", 1).value == pytest.approx((4 * 500 * 500 + 10_000) / 1e6)


def test_depthwise_takes_its_own_rate_when_estimated(save_graph, board) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], group=64)]
    path = save_graph(nodes, {"x": [1, 64, 13, 13]}, ["y"], {"w": (64, 1, 7, 7)})
    nanoseconds = 2 * 64 * 49 * 49 + 64 * (169 + 49) + 10_000
    assert estimate_latency(path, board, "onnxruntime", 1).value == pytest.approx(nanoseconds / 1e6)


def test_operators_add_up_to_the_whole_when_listed(network, board) -> None:
    found = estimate(network, board, "onnxruntime", 1)
    # The fused residual's second operand is read by the convolution; views and fused activations are no rows of their own.
    assert [o.op_type for o in found.by_operator] == ["Conv", "Conv", "GlobalAveragePool", "Gemm"]
    assert sum(o.ms for o in found.by_operator) == pytest.approx(found.median_ms)
    assert (found.device, found.runtime, found.threads) == ("board", "onnxruntime", 1)
    assert found.notes == () and found.unknown == () and found.evidence == "estimated"


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


def test_threads_between_and_beyond_the_known_follow_amdahl_with_a_wider_band(network, board) -> None:
    found = {threads: estimate(network, board, "onnxruntime", threads) for threads in (1, 2, 4, 8)}
    medians = [e.median_ms for e in found.values()]
    assert medians[0] > medians[1] > medians[2] > medians[3] > medians[2] / 2
    assert found[1].notes == found[4].notes == ()
    assert "no constants for 2 threads" in found[2].notes[0]
    width = {threads: e.high_ms / e.low_ms for threads, e in found.items()}
    assert width[8] > width[2] > width[1] == pytest.approx(width[4])


def test_one_known_number_of_threads_is_enough_when_others_are_asked_for(network, board) -> None:
    form = replace(board, latency_models=tuple(m for m in board.latency_models if m.threads == 1))
    one, four = (estimate(network, form, "onnxruntime", threads) for threads in (1, 4))
    assert one.median_ms / 2.6 < four.median_ms < one.median_ms
    assert "serial share" in four.notes[0] and four.high_ms / four.low_ms > one.high_ms / one.low_ms


def test_a_gpu_has_one_thread_when_more_are_asked_for(network, board) -> None:
    gpu = replace(board, kind="gpu")
    assert estimate(network, gpu, "onnxruntime", 8).median_ms == estimate(network, gpu, "onnxruntime", 1).median_ms


def test_all_arithmetic_takes_the_format_that_was_asked_for(network, board) -> None:
    as_it_is, int8 = estimate(network, board, "onnxruntime", 1), estimate(network, board, "onnxruntime", 1, number_format="int8")
    assert int8.median_ms < as_it_is.median_ms
    assert int8.fitted_on == "guesses"
    with pytest.raises(InputError, match="has no constants for bfloat16, which was asked for; it has: onnxruntime"):
        estimate(network, board, "onnxruntime", 1, number_format="bfloat16")


def test_ncnn_computes_floats_in_float16_where_the_profile_says_so(network, board) -> None:
    halves = tuple(replace(m, runtime="ncnn", number_format="float16") for m in board.latency_models if m.threads == 1)
    found = estimate(network, replace(board, latency_models=halves[:1]), "ncnn", 1)
    assert found.notes == ("ncnn computes float32 models in float16 on this machine",)


def test_feature_without_a_constant_makes_its_operator_unknown(save_graph, board) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Softmax", ["c"], ["y"])]
    path = save_graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], {"w": (4, 3, 1, 1)})
    model = board.latency_models[0]
    less = replace(model, nanoseconds={k: v for k, v in model.nanoseconds.items() if k != "exponential"})
    assert estimate(path, replace(board, latency_models=(less,)), "onnxruntime", 1).unknown == ("Softmax",)


def test_two_examples_ask_for_twice_the_products_but_the_same_weights(network) -> None:
    one, two = (count(network, {"x": [batch, 3, 24, 24]}).operators[2] for batch in (1, 2))
    for runtime in ("onnxruntime", "ncnn"):
        single, double = features(one, "float32", runtime), features(two, "float32", runtime)
        double.pop("spilled", None)  # two examples no longer fit the cache
        assert {k: v * (1 if k in SHARED else 2) for k, v in single.items()} == double


def test_winograd_is_counted_only_where_the_runtime_uses_it(network, board) -> None:
    convolution = count(network).operators[2]
    assert "convolution" in features(convolution, "float32", "onnxruntime")
    assert "winograd" in features(convolution, "float32", "ncnn")
    # Tiles of 8x8 for 6x6 results in floating point, of 6x6 for 4x4 results in integers.
    assert features(convolution, "float32", "ncnn")["winograd"] == 16 * 64 * 32 * 32
    assert features(convolution, "int8", "ncnn")["winograd"] == 36 * 36 * 32 * 32


def test_band_widens_upwards_when_an_operator_is_unknown(save_graph, board) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["c"])
    shape, weights = {"x": [1, 3, 8, 8]}, {"w": (4, 3, 1, 1)}
    known = save_graph([conv, helper.make_node("Softmax", ["c"], ["y"])], shape, ["y"], weights)
    plain = estimate_latency(known, board, "onnxruntime", 1)
    odd = save_graph([conv, helper.make_node("Wavelet", ["c"], ["y"], domain="com.example")], shape, ["y"], weights)
    found = estimate_latency(odd, board, "onnxruntime", 1)
    assert found.unknown == ("com.example::Wavelet",)
    assert found.low / found.value == pytest.approx(plain.low / plain.value)
    assert found.high / found.value > plain.high / plain.value


def test_reason_is_given_in_one_line_when_nothing_can_be_estimated(network, save_graph, board) -> None:
    with pytest.raises(InputError, match=r"no latency model for the runtime 'ncnn', .* it has: onnxruntime \(float32, int8\)"):
        estimate_latency(network, board, "ncnn", 1)
    with pytest.raises(InputError, match="threads >= 1 must hold, but got 0"):
        estimate_latency(network, board, "onnxruntime", 0)
    alone = save_graph([helper.make_node("Wavelet", ["x"], ["y"], domain="com.example")], {"x": [1, 3]}, ["y"])
    with pytest.raises(InputError, match="knows none of the model's operators"):
        estimate_latency(alone, board, "onnxruntime", 1)


def test_number_format_is_named_when_the_profile_has_no_constants_for_it(network, board) -> None:
    model = onnx.load(str(network))
    half = network.with_name("half.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, str(half))
    with pytest.raises(InputError, match=r"no constants for float16, which Conv '\w+' needs; it has: onnxruntime \(float32"):
        estimate_latency(half, board, "onnxruntime", 1)
