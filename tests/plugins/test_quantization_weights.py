"""Weights alone in fewer bits: in blocks, in halves, in shared values."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.plugin import Refused
from orchestrator.plugin.onnx_graph import OnnxGraph
from orchestrator_quantization.codebook import cluster, share
from orchestrator_quantization.embedding import quantize_embeddings
from orchestrator_quantization.float16 import Float16
from orchestrator_quantization.model_files import load_graph
from orchestrator_quantization.weight_only import WeightOnly
from orchestrator_quantization.weight_sharing import WeightSharing

BLOCKS, HALF, SHARING = WeightOnly(), Float16(), WeightSharing()


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def large(path: Path, *, opset: int = 13, width: int = 256) -> Path:
    """A classifier of two matrices, the second transposed, with an embedding table."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"], "lookup"),
        helper.make_node("ReduceMean", ["rows"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "w0", "b0"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("Gemm", ["active", "w1"], ["out"], "second", transB=1),
    ]
    constants = {"table": (400, width), "w0": (width, width), "b0": (width,), "w1": (32, width)}
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 7])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 32])],
        [
            numpy_helper.from_array(
                random.standard_normal(shape).astype(np.float32) * np.geomspace(0.1, 1, shape[-1], dtype="f"), k
            )
            for k, shape in constants.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


@pytest.fixture
def tokens() -> dict[str, np.ndarray]:
    return {"tokens": np.random.default_rng(1).integers(0, 400, (16, 7))}


@pytest.fixture
def context(make_case: Any, tmp_path: Path, tokens: Any) -> Any:
    import torch

    case = type(make_case("lstm"))(model=make_case("lstm").model, inputs=tokens, classes=None)
    return case.context(tmp_path / "work", example={"tokens": torch.from_numpy(tokens["tokens"][:2])})


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(((first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)).mean())


@pytest.mark.parametrize(
    ("bits", "block_size", "size", "least"), [(8, 32, 0.3, 0.999), (8, 128, 0.28, 0.999), (4, 32, 0.24, 0.99)]
)
def test_blocks_of_few_bits_shrink_products_and_tables(
    bits: int, block_size: int, size: float, least: float, context: Any, tokens: Any, run: Any, tmp_path: Path
) -> None:
    path = large(tmp_path / "large.onnx")
    BLOCKS.offer(path, BLOCKS.legal(context.target), context)
    made = BLOCKS.transform(path, {"bits": bits, "block_size": block_size}, context)
    assert made.stat().st_size < size * path.stat().st_size
    assert operators(made).count("MatMulNBits") == 2 and "Gemm" not in operators(made)
    assert cosine(run(path, tokens)[0], run(made, tokens)[0]) > least


def test_products_that_scale_or_transpose_their_input_stay(tmp_path: Path, context: Any, tokens: Any, run: Any) -> None:
    path = large(tmp_path / "large.onnx")
    model = onnx.load(str(path))
    model.graph.node[2].attribute.append(helper.make_attribute("alpha", 2.0))
    onnx.save(model, str(path))
    made = BLOCKS.transform(path, {"bits": 8, "block_size": 32}, context)
    assert operators(made).count("MatMulNBits") == 1 and operators(made).count("Gemm") == 1
    assert cosine(run(path, tokens)[0], run(made, tokens)[0]) > 0.999


def test_networks_of_convolutions_and_other_runtimes_get_no_blocks(
    make_case: Any, exported: Any, target: Any, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="it pays only where they hold at least half"):
        BLOCKS.offer(exported("residual-cnn"), BLOCKS.parameters, make_case("residual-cnn").context(tmp_path))
    for method in (BLOCKS, SHARING):
        with pytest.raises(Refused, match="onnxruntime"):
            method.legal(target(runtime="openvino"))


def test_quantizers_leave_the_program_as_it_was(context: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, root = large(tmp_path / "large.onnx"), logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level, list(sys.path))
    BLOCKS.transform(path, {"bits": 4, "block_size": 32}, context)
    HALF.transform(path, {}, context)
    assert before == (list(root.handlers), list(root.filters), root.level, list(sys.path))
    assert capfd.readouterr() == ("", "")


def test_rows_of_tables_have_scales_of_their_own(context: Any, tokens: Any, run: Any, tmp_path: Path) -> None:
    path = large(tmp_path / "large.onnx")
    model = onnx.load(str(path))
    table = numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[0] *= 1000  # one scale for the whole table would leave nothing of the others
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, str(path))
    graph = OnnxGraph(onnx.load(str(path)))
    assert quantize_embeddings(graph) == 1
    onnx.save(graph.model, str(tmp_path / "made.onnx"))
    others = {"tokens": tokens["tokens"].clip(min=1)}
    assert cosine(run(path, others)[0], run(tmp_path / "made.onnx", others)[0]) > 0.9995
    assert {t.name: t.data_type for t in graph.model.graph.initializer}["table_int8"] == TensorProto.INT8


def test_half_precision_needs_a_target_that_runs_it(target: Any) -> None:
    with pytest.raises(Refused, match="lists no float16"):
        HALF.legal(target())
    assert HALF.legal(target(formats=("float32", "float16"))) == ()


def test_half_precision_halves_the_file_and_keeps_inputs_and_outputs(
    make_case: Any, exported: Any, run: Any, tmp_path: Path
) -> None:
    case, path = make_case("plain-cnn"), exported("plain-cnn")
    made = HALF.transform(path, {}, case.context(tmp_path / "work"))
    onnx.checker.check_model(str(made), full_check=True)  # nodes in order, among others
    weights = [t for t in onnx.load(str(made)).graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert len(weights) >= 8 and made.stat().st_size < 0.7 * path.stat().st_size
    expected, got = run(path, case.inputs)[0], run(made, case.inputs)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_network_without_float_weights_gets_no_half_precision(make_case: Any, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["out"])],
        "empty",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "empty.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    for method in (HALF, SHARING, BLOCKS):
        with pytest.raises(Refused, match="weights"):
            method.offer(path, method.parameters, make_case("plain-cnn").context(tmp_path))


@pytest.mark.parametrize(("clusters", "size", "least"), [(256, 0.28, 0.9995), (16, 0.15, 0.97)])
def test_shared_weights_shrink_the_file_and_are_spelt_out_at_loading(
    clusters: int, size: float, least: float, context: Any, tokens: Any, run: Any, tmp_path: Path
) -> None:
    path = large(tmp_path / "large.onnx")
    SHARING.offer(path, SHARING.legal(context.target), context)
    made = SHARING.transform(path, {"clusters": clusters}, context)
    assert made.stat().st_size < size * path.stat().st_size
    assert cosine(run(path, tokens)[0], run(made, tokens)[0]) > least
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(made), options, providers=["CPUExecutionProvider"])
    loaded = operators(tmp_path / "loaded.onnx")
    assert loaded.count("Gather") == 1 and "Cast" not in loaded and "Reshape" not in loaded


@pytest.mark.parametrize("clusters", [16, 256])
def test_shared_tensors_hold_the_centres_only(clusters: int, run: Any, tokens: Any, tmp_path: Path) -> None:
    graph = OnnxGraph(onnx.load(str(large(tmp_path / "large.onnx", width=255))))
    wanted = {name: graph.array(name) for name in ("table", "w0", "w1")}
    assert share(graph, clusters) == 3  # the bias is smaller than a codebook; w0 has an odd number of elements
    for name in wanted:
        graph.model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(graph.model, str(tmp_path / "made.onnx"))
    for (name, before), after in zip(wanted.items(), run(tmp_path / "made.onnx", tokens)[1:], strict=True):
        assert after.shape == before.shape and len(np.unique(after)) <= clusters, name
        assert np.square(after - before).mean() < {16: 0.02, 256: 1e-4}[clusters] * np.square(before).mean()


def test_clusters_are_where_the_numbers_are() -> None:
    values = np.array([1.0, 1.2, 0.8, 5, 5.2, 4.8, -3, -3.2, -2.8], dtype=np.float32)
    centres, indices = cluster(values, 3)
    np.testing.assert_allclose(centres, [-3, 1, 5], atol=1e-6)
    assert indices.tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]


def test_fewer_values_than_clusters_are_kept_as_they_are() -> None:
    values = np.array([0, 0, 0, 2, 0, -1, 2], dtype=np.float32)
    centres, indices = cluster(values, 16)
    np.testing.assert_array_equal(centres[indices], values)


def test_pruned_weights_stay_zero_when_they_share_values() -> None:
    values = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    values[np.arange(4000) % 2 == 0] = 0
    centres, indices = cluster(values, 16)
    assert (centres[indices][values == 0] == 0).all()


def test_old_files_with_constants_among_the_nodes_share_weights(make_case: Any, context: Any, tmp_path: Path) -> None:
    path = large(tmp_path / "large.onnx")
    model = onnx.load(str(path))
    held = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*held, *model.graph.node]
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
    assert SHARING.offer(path, SHARING.parameters, context)
    assert load_graph(path, context, "x").float_elements() == 400 * 256 + 256 * 256 + 256 + 32 * 256
