"""`orchestrate estimate` as a person types it."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Cli, Project

BOARD = "raspberry-pi-4"


@pytest.fixture
def model(project: Project) -> str:
    return project.onnx[project.onnx.index("--model") + 1]


def estimated(cli: Cli, *arguments: str) -> dict[str, Any]:
    done = cli("estimate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(cli: Cli, *arguments: str) -> str:
    done = cli("estimate", *arguments)
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def test_estimate_names_what_it_speaks_of_and_how_sure_it_is(cli: Cli, model: str) -> None:
    found = estimated(cli, model, "--target", BOARD)
    assert found["evidence"] == "estimated"
    assert (found["device"], found["runtime"], found["threads"]) == (BOARD, "onnxruntime", 4)
    assert 0 < found["low_ms"] < found["median_ms"] < found["high_ms"]
    assert sum(operator["ms"] for operator in found["by_operator"]) == pytest.approx(found["median_ms"])
    assert {operator["op_type"] for operator in found["by_operator"]} >= {"Conv"}
    assert "onnxruntime" in found["fitted_on"]
    assert any("fewer than any network of the fit had" in note for note in found["notes"]), "a tiny network"
    done = cli("estimate", model, "--target", BOARD)
    assert "estimated from the graph" in done.stdout and "Conv" in done.stdout


def test_threads_precision_and_runtime_change_the_figure(cli: Cli, model: str) -> None:
    one = estimated(cli, model, "--target", BOARD, "--threads", "1")
    four = estimated(cli, model, "--target", BOARD, "--threads", "4")
    integer = estimated(cli, model, "--target", BOARD, "--threads", "1", "--precision", "int8")
    other = estimated(cli, model, "--target", BOARD, "--threads", "1", "--runtime", "ncnn")
    assert four["median_ms"] < one["median_ms"] and integer["median_ms"] < one["median_ms"]
    assert other["runtime"] == "ncnn" and "ncnn" in other["fitted_on"]
    width = {name: found["high_ms"] / found["low_ms"] for name, found in (("own", other), ("carried", one))}
    assert width["own"] < width["carried"]  # published times of ncnn stand behind it; of onnxruntime there are none


def test_bad_input_is_one_line(cli: Cli, model: str) -> None:
    assert "there is no file 'nowhere.onnx'" in refused(cli, "nowhere.onnx", "--target", BOARD)
    Path(cli.folder / "weights.pt").write_bytes(b"no")
    assert "is no .onnx file" in refused(cli, "weights.pt", "--target", BOARD)
    assert "did you mean raspberry-pi-4" in refused(cli, model, "--target", "raspberry-pi4")
    assert "unknown runtime 'onnxrt'; did you mean onnxruntime" in refused(cli, model, "--target", BOARD, "--runtime", "onnxrt")
    assert "unknown precision 'int4'" in refused(cli, model, "--target", BOARD, "--precision", "int4")
    assert "--threads must be 1 or more" in refused(cli, model, "--target", BOARD, "--threads", "0")
    assert "'raspberry-pi-4' has 4 cores" in refused(cli, model, "--target", BOARD, "--threads", "64")
    assert "Missing option '--target'" in refused(cli, model)


def test_board_without_figures_says_so(cli: Cli, model: str) -> None:
    said = refused(cli, model, "--target", "host")
    assert "no constants of that machine are known" in said and "orchestrate profiles characterize" in said


def test_unknown_operators_and_open_shapes_are_named(cli: Cli) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Strange", ["y"], ["z"], domain="com.example")]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [8, 3, 3, 3], [0.1] * 216)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "height", "width"])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 8, "a", "b"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(cli.folder / "strange.onnx"))
    assert "--input-shape x=" in refused(cli, "strange.onnx", "--target", BOARD)
    found = estimated(cli, "strange.onnx", "--target", BOARD, "--threads", "1", "--input-shape", "x=1,3,32,32")
    assert found["unknown"] == ["com.example::Strange"]
    del graph.node[1:]
    graph.output[0].name = "y"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(cli.folder / "known.onnx"))
    known = estimated(cli, "known.onnx", "--target", BOARD, "--threads", "1", "--input-shape", "x=1,3,32,32")
    assert found["high_ms"] / found["median_ms"] > known["high_ms"] / known["median_ms"]
