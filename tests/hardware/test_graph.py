"""Counting from the exported graph."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from orchestrator.errors import InputError
from orchestrator.hardware.graph import GraphCount, Operator, count

BOARDS = Path(__file__).parents[2].parent / "shared" / "cases" / "boards"
NETWORKS = sorted(p.stem for p in (BOARDS / "models").glob("*.onnx"))


def of(counted: GraphCount, kind: str) -> Operator:
    (operator,) = [o for o in counted.operators if o.op_type == kind]
    return operator


def reference() -> dict[str, tuple[float, float]]:
    """M MACs and M parameters of each network, from the table in the cases' README."""
    rows = re.findall(r"^\| ([\w.-]+) \| ([\d.]+) \| ([\d.]+) \|", (BOARDS / "README.md").read_text(), re.MULTILINE)
    return {name: (float(macs), float(parameters)) for name, macs, parameters in rows}


@pytest.mark.skipif(not NETWORKS, reason=f"the published board cases are not at {BOARDS}")
def test_macs_and_parameters_equal_the_reference_when_counted_on_published_networks() -> None:
    for name, (macs, parameters) in reference().items():
        counted = count(BOARDS / "models" / f"{name}.onnx")
        assert round(counted.macs / 1e6, 1) == macs, name
        assert round(counted.parameters / 1e6, 3) == parameters, name
        assert counted.unknown == ()


def test_activation_costs_no_operator_when_it_follows_a_convolution(save_graph) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    counted = count(save_graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], {"w": (16, 3, 3, 3), "b": (16,)}))
    conv = of(counted, "Conv")
    assert counted.macs == conv.macs == 16 * 3 * 9 * 64
    assert counted.parameters == 16 * 3 * 9 + 16
    assert of(counted, "Relu").fused_into == "conv"
    assert conv.bytes_read == 4 * (3 * 64 + 16 * 3 * 9 + 16)
    assert conv.bytes_written == 4 * 16 * 64


def test_activation_stands_alone_when_the_result_is_used_twice(save_graph) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Concat", ["c", "r"], ["y"], axis=1),
    ]
    counted = count(save_graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], {"w": (4, 3, 1, 1)}))
    assert of(counted, "Relu").fused_into is None


def test_swish_and_residual_are_fused_when_they_follow_a_convolution(save_graph) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["m", "x"], ["y"]),
    ]
    counted = count(save_graph(nodes, {"x": [1, 4, 8, 8]}, ["y"], {"w": (4, 4, 1, 1)}))
    assert [o.fused_into for o in counted.operators] == [None, "conv", "conv", "conv"]
    # The convolution reads its input, and the shortcut once more.
    assert counted.operators[0].bytes_read == 4 * (2 * 4 * 64 + 16)


def test_groups_and_sizes_of_a_convolution_are_told_when_counted(save_graph) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "d"], ["c"], name="depthwise", group=8),
        helper.make_node("Conv", ["c", "g"], ["y"], name="grouped", group=2),
    ]
    counted = count(save_graph(nodes, {"x": [1, 8, 9, 9]}, ["y"], {"d": (8, 1, 3, 3), "g": (8, 4, 1, 1)}))
    depthwise, grouped = (o.product for o in counted.operators)
    assert (depthwise.groups, depthwise.in_channels, depthwise.kernel, depthwise.out_size) == (8, 8, (3, 3), (7, 7))
    assert (grouped.groups, grouped.in_channels, grouped.out_channels, grouped.kernel) == (2, 8, 8, (1, 1))
    assert counted.macs == 8 * 9 * 49 + 8 * 4 * 49


def test_weights_are_counted_when_they_are_nodes_instead_of_initializers(save_graph) -> None:
    one = helper.make_tensor("one", 1, [1], [0.5])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"], value=one),
        helper.make_node("Constant", [], ["b"], value=helper.make_tensor("b", 1, [5], [0.0] * 5)),
        helper.make_node("Gemm", ["x", "w", "b"], ["g"]),
        helper.make_node("Reshape", ["g", "target"], ["y"]),
    ]
    weights = {"shape": np.array([7, 5], np.int64), "target": np.array([5, 1], np.int64)}
    counted = count(save_graph(nodes, {"x": [1, 7]}, ["y"], weights))
    assert (counted.macs, counted.parameters) == (35, 40)
    assert of(counted, "Reshape").free


def test_batch_is_one_and_a_named_axis_is_shared_when_shapes_are_dynamic(save_graph) -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    path = save_graph(nodes, {"a": ["batch", "length", 8], "b": ["batch", 8, "length"]}, ["y"])
    assert count(path, {"a": [1, 5, 8]}).macs == 5 * 5 * 8
    assert count(path, {"a": [2, 5, 8]}).macs == 2 * 5 * 5 * 8


def test_computed_shape_is_followed_when_an_exporter_writes_it_as_arithmetic(save_graph) -> None:
    # What torch writes for view(-1, length * 2, 4): sizes as scalars, reshaped to [1] and joined.
    nodes = [
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Squeeze", ["length"], ["scalar"]),
        helper.make_node("Mul", ["scalar", "two"], ["double"]),
        helper.make_node("Reshape", ["double", "minus"], ["vector"]),
        helper.make_node("Concat", ["minus", "vector", "four"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    numbers = {"two": np.array(2), "minus": np.array([-1]), "four": np.array([4])}
    path = save_graph(nodes, {"x": ["batch", "length", 8]}, ["y"], {**numbers, "w": (4, 3)})
    counted = count(path, {"x": [1, 5, 8]})
    assert counted.macs == 10 * 4 * 3
    assert counted.unknown == ()
    assert [o.op_type for o in counted.operators if not o.free] == ["MatMul"]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (None, "input 'x' has a dynamic axis 2 ('height') without a size; give the whole shape, as in --input-shape x=1,..."),
        ({"y": [1]}, "unknown input 'y'; "),
        ({"x": [1, 3, 8]}, "the shape of input 'x' must fit ['batch', 3, 'height', 8], but got [1, 3, 8]"),
        ({"x": [1, 4, 8, 8]}, "must fit"),
        ({"x": [1, 3, 0, 8]}, "must fit"),
    ],
)
def test_shape_is_asked_for_in_one_line_when_an_axis_is_open(save_graph, shapes, expected) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save_graph(nodes, {"x": ["batch", 3, "height", 8]}, ["y"], {"w": (4, 3, 3, 3)})
    with pytest.raises(InputError) as caught:
        count(path, shapes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_told_in_one_line_when_counted(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, expected in [("none", "No such file"), ("text", "not an ONNX file"), ("empty", "no operators")]:
        with pytest.raises(InputError, match=expected) as caught:
            count(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)


def test_large_weights_are_not_needed_when_they_lie_in_another_file(save_graph, tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    weights = {"to": np.array([1, 64], np.int64), "w": (64, 64)}
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    path = save_graph(nodes, {"x": [1, 8, 8]}, ["y"], weights, **options)
    before = path.read_bytes()
    counted = count(path)
    assert (counted.macs, counted.parameters) == (64 * 64, 64 * 64)
    assert path.read_bytes() == before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="the data of 'to' beside it cannot be read"):
        count(path)


def test_operator_is_named_when_the_model_does_not_know_it(save_graph) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Wavelet", ["c"], ["y"], domain="com.example"),
    ]
    counted = count(save_graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], {"w": (4, 3, 1, 1)}))
    assert counted.unknown == ("com.example::Wavelet",)


def test_recurrent_network_is_counted_when_it_is_an_lstm(save_graph) -> None:
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=6)]
    counted = count(save_graph(nodes, {"x": [10, 1, 4]}, ["y"], {"w": (1, 24, 4), "r": (1, 24, 6)}))
    assert counted.macs == 10 * (24 * 4 + 24 * 6)


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_are_counted_as_the_matrix_that_they_stand_for(bits: int, save_graph, tmp_path: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="product"), helper.make_node("Relu", ["m"], ["y"])]
    path = save_graph(nodes, {"x": [1, 6, 64]}, ["y"], {"w": (64, 40)})
    plain = count(path)
    quantizer = MatMulNBitsQuantizer(onnx.load(path), bits=bits, block_size=32, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, tmp_path / "packed.onnx")
    packed = count(tmp_path / "packed.onnx")
    assert packed.macs == plain.macs == 6 * 64 * 40
    assert packed.parameters == plain.parameters == 64 * 40
    assert packed.unknown == () and of(packed, "MatMulNBits").bytes_read < of(plain, "MatMul").bytes_read
