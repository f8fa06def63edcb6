"""Static INT8: what stays in float, and which scales the rest gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from orchestrator.plugin import Choice, MethodError, Number
from orchestrator.plugin.parameters import checked
from orchestrator_quantization.layers import first_convolutions, weighted_layers
from orchestrator_quantization.model_files import load_graph
from orchestrator_quantization.sensitivity import distance
from orchestrator_quantization.static_int8 import StaticInt8

STATIC = StaticInt8()
LAYERS = ("Conv", "Gemm", "MatMul")


def float_layers(path: Path) -> list[str]:
    """Names of the layers whose weights are float constants, in a QDQ file."""
    graph = onnx.load(str(path)).graph
    constants = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    return [node.name for node in graph.node if node.op_type in LAYERS and node.input[1] in constants]


def ranges(parameters: Any) -> dict[str, Any]:
    return {p.name: p.choices if isinstance(p, Choice) else (p.low, p.high) for p in parameters}


@pytest.fixture
def make(make_case: Any, exported: Any, tmp_path: Path) -> Callable[..., Path]:
    """`make(network, remember=..., **parameters)`: the file of static-int8."""

    def transform(network: str, *, changes: Any = None, **parameters: Any) -> Path:
        context = make_case(network).context(tmp_path / f"work{len(list(tmp_path.iterdir()))}", **(changes or {}))
        return STATIC.transform(exported(network), checked("static-int8", STATIC.parameters, parameters), context)

    return transform


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_layers_stay_in_float_as_asked(count: int, make: Any) -> None:
    assert len(float_layers(make("residual-cnn", float_layers=count))) == count


def test_most_sensitive_layer_stays_in_float_and_outputs_come_closer(
    make_case: Any, export: Any, run: Any, tmp_path: Path
) -> None:
    case = make_case("plain-cnn")
    with torch.no_grad():  # one input channel of the second convolution leaves the others less than a step of a common scale
        case.model.features[1].weight[0] /= 500
        case.model.features[1].bias[0] /= 500
        case.model.features[4].weight[:, 0] *= 500
    path = export(case, case.model, tmp_path / "model.onnx")
    expected, moved, found = run(path, case.inputs), [], []
    for count in (0, 1):
        values = checked("x", STATIC.parameters, {"granularity": "tensor", "float_layers": count})
        made = STATIC.transform(path, values, case.context(tmp_path / f"work{count}"))
        moved.append(distance(expected, run(made, case.inputs)))
        found.append(float_layers(made))
    second = [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "Conv"][1]
    assert found == [[], [second]]
    assert moved[1] < 0.3 * moved[0]


def test_sensitivities_name_the_layers_that_are_left_out(make: Any) -> None:
    tables: list[dict[str, float]] = []

    def remember(key: str, compute: Any) -> Any:
        tables.append(compute())
        return tables[-1]

    found = float_layers(make("plain-cnn", float_layers=2, changes={"remember": remember}))
    (table,) = tables
    assert len(table) == 4 and all(value > 0 for value in table.values())
    assert set(found) == set(sorted(table, key=lambda name: -table[name])[:2])


def test_sensitivities_are_computed_once_for_all_that_share_them(make: Any) -> None:
    kept: dict[str, Any] = {}
    computed = []

    def remember(key: str, compute: Any) -> Any:
        if key not in kept:
            computed.append(key)
            kept[key] = compute()
        return kept[key]

    changes = {"remember": remember}
    for count in (0, 1, 2):
        make("plain-cnn", float_layers=count, changes=changes)
    make("plain-cnn", float_layers=1, bias_correction=True, first_layer="float32", form="qoperator", changes=changes)
    assert len(computed) == 1
    make("plain-cnn", float_layers=1, granularity="tensor", changes=changes)
    make("plain-cnn", float_layers=1, scheme="s8s8", changes=changes)
    assert len(computed) == 3


def test_all_layers_in_float_is_an_error_that_says_the_law(make: Any) -> None:
    with pytest.raises(MethodError, match="float_layers < 4 must hold.*but got float_layers=4"):
        make("plain-cnn", float_layers=4)


def test_first_convolution_stays_in_float_with_its_activation(make: Any) -> None:
    made = make("plain-cnn", first_layer="float32")
    graph = onnx.load(str(made)).graph
    (first,) = [node for node in graph.node if node.op_type == "Conv" and node.input[0] == "image"]
    assert float_layers(made) == [first.name]
    assert [node.op_type for node in graph.node if first.output[0] in node.input] == ["Relu"]


@pytest.mark.parametrize(("granularity", "scales"), [("channel", 16), ("tensor", 1)])
def test_weights_have_a_scale_for_each_channel_or_one(granularity: str, scales: int, make: Any) -> None:
    graph = onnx.load(str(make("plain-cnn", granularity=granularity))).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    producers = {name: node for node in graph.node for name in node.output}
    assert constants[producers[convolutions[0].input[1]].input[1]].size == scales


@pytest.mark.parametrize(("symmetry", "shifted"), [("symmetric", False), ("asymmetric", True)])
def test_signed_activations_have_a_zero_point_of_zero_unless_asked(symmetry: str, shifted: bool, make: Any) -> None:
    graph = onnx.load(str(make("plain-cnn", scheme="s8s8", symmetry=symmetry))).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    zeros = [constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert any(np.any(zero != 0) for zero in zeros) is shifted


def test_offer_keeps_what_the_network_has_a_use_for(make_case: Any, exported: Any, tmp_path: Path) -> None:
    found = {
        network: ranges(STATIC.offer(exported(network), STATIC.parameters, make_case(network).context(tmp_path)))
        for network in ("plain-cnn", "transformer")
    }
    assert found["plain-cnn"]["float_layers"] == (0, 2)
    assert found["plain-cnn"]["first_layer"] == ("int8", "float32")
    assert found["plain-cnn"]["equalisation"] == found["plain-cnn"]["bias_correction"] == (False, True)
    assert found["transformer"]["first_layer"] == ("int8",) and found["transformer"]["equalisation"] == (False,)
    assert not list(tmp_path.iterdir()), "scratch files were left"


def test_symmetry_is_searched_for_signed_activations_only(target: Any) -> None:
    assert ranges(STATIC.legal(target(schemes=("u8s8",))))["symmetry"] == ("symmetric",)
    assert ranges(STATIC.legal(target(schemes=("u8s8", "s8s8"))))["symmetry"] == ("symmetric", "asymmetric")


def test_search_range_of_float_layers_is_narrower_than_the_law() -> None:
    (found,) = [p for p in STATIC.parameters if p.name == "float_layers"]
    assert isinstance(found, Number) and (found.start, found.high, found.bounds) == (0, 4, (0, 1000))
    assert found.check(57) == 57


def test_only_convolutions_before_any_other_weight_are_first(make_case: Any, exported: Any, tmp_path: Path) -> None:
    graph = load_graph(exported("residual-cnn"), make_case("residual-cnn").context(tmp_path), "x")
    assert [node.input[0] for node in first_convolutions(graph)] == ["image"]
    assert len(weighted_layers(graph)) == 11
