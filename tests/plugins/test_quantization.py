"""INT8 quantization: what a target makes legal, and files of all kinds."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.plugin import MethodError, Parameter, Refused
from orchestrator.plugin.parameters import checked
from orchestrator_quantization.dynamic_int8 import DynamicInt8
from orchestrator_quantization.int8 import saturates
from orchestrator_quantization.model_files import prepare
from orchestrator_quantization.static_int8 import StaticInt8

STATIC, DYNAMIC = StaticInt8(), DynamicInt8()


def choices(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    return {p.name: getattr(p, "choices", None) for p in parameters}


def old_file(path: Path, *, batch: int | str = "n") -> Path:
    """As an old exporter writes: opset 11, batch norm unfolded, weights in Constant nodes, one wrong shape."""
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.standard_normal((8, 3, 3, 3), dtype=np.float32), "w")
    norm = [numpy_helper.from_array(random.uniform(0.5, 1.5, 8).astype(np.float32), f"n{k}") for k in range(4)]
    nodes = [
        helper.make_node("Constant", [], ["weight"], value=weight),
        helper.make_node("Conv", ["image", "weight"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["convolved", "n0", "n1", "n2", "n3"], ["normed"]),
        helper.make_node("Relu", ["normed"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 8])],
        norm,
        value_info=[helper.make_tensor_value_info("convolved", TensorProto.FLOAT, [7, 8, 8, 8])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), str(path))
    return path


def test_legal_keeps_the_profiles_schemes_the_best_first(target: Any) -> None:
    found = choices(STATIC.legal(target(schemes=("s8s8", "u8s8"))))
    assert found["scheme"] == ("s8s8", "u8s8") and found["form"] == ("qdq", "qoperator")


def test_other_runtimes_get_the_standards_operators_only(target: Any) -> None:
    assert choices(STATIC.legal(target(runtime="openvino")))["form"] == ("qdq",)
    with pytest.raises(Refused, match="run in onnxruntime only"):
        DYNAMIC.legal(target(runtime="openvino"))


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_target_without_int8_is_refused(method: Any, target: Any) -> None:
    with pytest.raises(Refused, match="lists no int8"):
        method.legal(target(formats=("float32",)))


def test_target_without_schemes_is_refused(target: Any) -> None:
    with pytest.raises(Refused, match="no int8 scheme"):
        STATIC.legal(target(schemes=()))


@pytest.mark.parametrize(
    ("isa", "expected"),
    [
        (("avx2", "fma"), True),
        (("avx2", "avx_vnni"), False),
        (("avx512_vnni",), False),
        (("neon",), False),
        ((), False),
    ],
)
def test_weights_keep_to_seven_bits_on_x86_without_vnni_only(isa: tuple[str, ...], expected: bool, target: Any) -> None:
    assert saturates(target(isa=isa)) is expected


def test_seven_bit_weights_are_written_for_such_a_target(make_case: Any, exported: Any, target: Any, tmp_path: Path) -> None:
    case, largest = make_case("plain-cnn"), []
    for isa in (("avx2",), ("avx2", "avx_vnni")):
        context = case.context(tmp_path, target=target(isa=isa))
        made = onnx.load(str(STATIC.transform(exported("plain-cnn"), checked("x", STATIC.parameters, {}), context)))
        found = [numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == TensorProto.INT8]
        largest.append(max(int(np.abs(t.astype(int)).max()) for t in found))
    assert largest == [64, 127]


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_files_of_old_exporters_are_made_ready(batch: int | str, make_case: Any, run: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    path = old_file(tmp_path / "old.onnx", batch=batch)
    example = {"image": case.batch(4)["image"]}
    STATIC.offer(path, STATIC.parameters, case.context(tmp_path))
    context = case.context(tmp_path / "work", example=example)
    made = STATIC.transform(path, checked("x", STATIC.parameters, {}), context)
    inputs = {"image": case.inputs["image"][: batch if isinstance(batch, int) else 4]}
    expected, got = run(path, inputs)[0], run(made, inputs)[0]
    assert np.abs(expected - got).max() < 0.1 * np.abs(expected).max()
    operators = {node.op_type for node in onnx.load(str(made)).graph.node}
    assert "BatchNormalization" not in operators and "QuantizeLinear" in operators


def test_dynamic_quantizes_lstms_and_products_but_no_convolution(make_case: Any, exported: Any, tmp_path: Path) -> None:
    for network, expected in (("lstm", "DynamicQuantizeLSTM"), ("transformer", "MatMulInteger")):
        case = make_case(network)
        made = DYNAMIC.transform(exported(network), {"weights": "s8"}, case.context(tmp_path))
        operators = {node.op_type for node in onnx.load(str(made)).graph.node}
        assert expected in operators and "ConvInteger" not in operators


def test_unsigned_dynamic_weights_run(make_case: Any, exported: Any, tmp_path: Path) -> None:
    for network in ("lstm", "transformer"):
        made = DYNAMIC.transform(exported(network), {"weights": "u8"}, make_case(network).context(tmp_path))
        assert made.stat().st_size


def test_attention_sums_and_masks_stay_in_float(make_case: Any, exported: Any, tmp_path: Path) -> None:
    values = checked("x", STATIC.parameters, {"form": "qoperator"})
    made = STATIC.transform(exported("transformer"), values, make_case("transformer").context(tmp_path))
    operators = {node.op_type for node in onnx.load(str(made)).graph.node}
    assert "QLinearAdd" not in operators and operators & {"QLinearMatMul", "QGemm"}


def test_program_is_left_as_it_was(make_case: Any, exported: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level, root.manager.disable, list(warnings.filters))
    STATIC.transform(
        exported("plain-cnn"),
        checked("x", STATIC.parameters, {"calibration": "entropy"}),
        make_case("plain-cnn").context(tmp_path),
    )
    assert before == (list(root.handlers), list(root.filters), root.level, root.manager.disable, list(warnings.filters))
    assert capfd.readouterr() == ("", "")


def test_exporters_notes_are_left_out_and_nodes_have_names(make_case: Any, exported: Any, tmp_path: Path) -> None:
    model = onnx.load(str(exported("residual-cnn")))
    for node in model.graph.node:
        node.name = ""
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    nodes = onnx.load(str(prepare(path, make_case("residual-cnn").context(tmp_path), "static-int8"))).graph.node
    assert all(node.name for node in nodes) and len({node.name for node in nodes}) == len(nodes)
    assert not any(node.metadata_props or node.doc_string for node in nodes)


def test_file_that_is_no_onnx_is_one_line(make_case: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(MethodError, match=r"model\.onnx cannot be read as ONNX") as raised:
        prepare(path, make_case("plain-cnn").context(tmp_path), "static-int8")
    assert "\n" not in str(raised.value)


def test_file_over_two_gigabytes_is_refused_before_it_is_read(make_case: Any, tmp_path: Path) -> None:
    path = old_file(tmp_path / "model.onnx")
    with (tmp_path / "model.onnx.data").open("wb") as sparse:
        sparse.truncate(2**31)
    with pytest.raises(MethodError, match="but quantization takes at most"):
        prepare(path, make_case("plain-cnn").context(tmp_path), "static-int8")


def test_no_calibration_example_is_an_error(make_case: Any, exported: Any, tmp_path: Path) -> None:
    context = make_case("plain-cnn").context(tmp_path, calibration=lambda count, batch: iter(()))
    with pytest.raises(MethodError, match="calibration has no"):
        STATIC.transform(exported("plain-cnn"), checked("x", STATIC.parameters, {}), context)
