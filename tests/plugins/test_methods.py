"""The kit over every built-in method and every small network.

Golden results: what each method makes of each network at its defaults stands in golden.json; where a change is meant, run
`python -m pytest -n0 tests/plugins/test_methods.py --golden` and look at the difference.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator_distillation
import orchestrator_graph
import orchestrator_morphology
import orchestrator_pruning
import orchestrator_quantization
from orchestrator.plugin import Method, OnnxMethod, TorchMethod
from orchestrator.plugin.parameters import checked
from orchestrator.plugin.testing import Case, MethodTests, target

PACKAGES = (
    orchestrator_distillation,
    orchestrator_graph,
    orchestrator_morphology,
    orchestrator_pruning,
    orchestrator_quantization,
)
METHODS: dict[str, Method] = {m.name: m for package in PACKAGES for m in package.orchestrator_methods()}
ALL_FORMATS = ("float32", "float16", "int8")
GOLDEN = Path(__file__).with_name("golden.json")
NETWORKS = ("plain-cnn", "residual-cnn", "transformer", "lstm")

NO_CHAIN = "no inner chain"
NO_ATTENTION = "no attention of several heads"
NO_COPIES = "no slice, padding or mean"
FLOAT_STAYS = "the others would stay in float"
HALF = "it pays only where they hold at least half"
REFUSED = {
    ("activation-replacement", "any"): "no activation that ReLU or Hardswish is cheaper than",
    ("block-removal", "plain-cnn"): "no block of this network can be removed",
    ("block-removal", "lstm"): "no block of this network can be removed",
    ("channel-pruning", "lstm"): "no layer can lose channels",
    ("dynamic-int8", "plain-cnn"): "convolutions would become slower",
    ("dynamic-int8", "residual-cnn"): "convolutions would become slower",
    ("evolution", "lstm"): "layers whose cost is not counted",
    ("expansion-ratio", "residual-cnn"): NO_CHAIN,
    ("expansion-ratio", "lstm"): NO_CHAIN,
    ("graph-rewriting", "plain-cnn"): NO_COPIES,
    ("graph-rewriting", "transformer"): NO_COPIES,
    ("graph-rewriting", "lstm"): NO_COPIES,
    ("group-pruning", "lstm"): "no group of layers can lose channels",
    ("head-pruning", "plain-cnn"): NO_ATTENTION,
    ("head-pruning", "residual-cnn"): NO_ATTENTION,
    ("head-pruning", "lstm"): NO_ATTENTION,
    ("kernel-shrink", "any"): "no convolution with a kernel larger than 3",
    ("net2deeper", "lstm"): "reads the output of a ReLU",
    ("net2wider", "residual-cnn"): NO_CHAIN,
    ("net2wider", "lstm"): NO_CHAIN,
    ("network-slimming", "transformer"): "no batch norm normalises channels",
    ("network-slimming", "lstm"): "no batch norm normalises channels",
    ("qat-int8", "lstm"): FLOAT_STAYS,
    ("resolution", "transformer"): "no image input",
    ("resolution", "lstm"): "no image input",
    ("separable-convolution", "transformer"): "no dense convolution",
    ("separable-convolution", "lstm"): "no dense convolution",
    ("static-int8", "lstm"): FLOAT_STAYS,
    ("student", "any"): "no student was named",
    ("weight-only", "plain-cnn"): HALF,
    ("weight-only", "residual-cnn"): HALF,
    ("weight-only", "lstm"): HALF,
    ("width-multiplier", "lstm"): "can be narrowed",
}
"""Why a method takes no part on a network; those that refuse all four are held to their own networks in their own tests."""


class Ours(MethodTests):
    """The kit, and golden results beside it."""

    def networks(self) -> Sequence[Any]:
        """What takes seconds each and few people use runs with the slow tests."""
        slow = () if self.method.usual else ("transformer", "lstm")
        return [pytest.param(n, id=n, marks=[pytest.mark.slow] if n in slow else []) for n in NETWORKS]

    def context(self, case: Case, workspace: Path) -> Any:
        changes = {"target": target(formats=ALL_FORMATS)} if self.method.name == "float16" else {}
        return case.context(workspace, **changes)

    def record(self, network: str, facts: dict[str, Any], request: pytest.FixtureRequest) -> None:
        key = f"{self.method.name} on {network}"
        kept = json.loads(GOLDEN.read_text("utf-8"))
        if request.config.getoption("--golden"):
            kept[key] = facts
            GOLDEN.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
        assert kept[key] == facts


def refusals(method: str) -> dict[str, str]:
    """Why a method takes no part, by network."""
    everywhere = REFUSED.get((method, "any"))
    return {n: reason for n in NETWORKS if (reason := REFUSED.get((method, n), everywhere))}


for name, found in METHODS.items():
    title = "Test" + "".join(part.capitalize() for part in name.split("-"))
    least = 0.98 if isinstance(found, OnnxMethod) else 0.9
    globals()[title] = type(title, (Ours,), {"method": found, "refuses": refusals(name), "likeness": least})


def test_declarations_of_order_are_symmetric() -> None:
    for one in METHODS.values():
        for other in METHODS.values():
            if other.family == one.family:
                assert (one.before, one.after) == (other.before, other.after), f"{one.name} and {other.name} are of one family"
            assert (other.family in one.before) == (one.family in other.after), f"{one.name} and {other.name} disagree"


@pytest.mark.parametrize("method", METHODS)
def test_summary_names_a_paper(method: str) -> None:
    assert "20" in METHODS[method].summary


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8", "u8u8"])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn", "transformer"])
def test_every_static_combination_runs(
    network: str, form: str, scheme: str, make_case: Any, exported: Any, run: Any, tmp_path: Path
) -> None:
    case, method = make_case(network), METHODS["static-int8"]
    assert isinstance(method, OnnxMethod)
    for calibration in ("minmax", "percentile", "entropy"):
        values = checked(method.name, method.parameters, {"scheme": scheme, "form": form, "calibration": calibration})
        made = method.transform(exported(network), values, case.context(tmp_path))
        inputs = {name: array[:16] for name, array in case.inputs.items()}
        expected, got = run(exported(network), inputs)[0], run(made, inputs)[0]
        cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
        assert cosine.mean() > 0.95, calibration


def test_all_steps_after_one_another_run(make_case: Any, export: Any, run: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    context = case.context(tmp_path)
    model = case.copy()
    for name in ("block-removal", "channel-pruning", "distillation"):
        method = METHODS[name]
        assert isinstance(method, TorchMethod)
        model = method.transform(model, checked(name, method.parameters, {}), context)
    path = export(case, model, tmp_path / "model.onnx")
    method = METHODS["static-int8"]
    assert isinstance(method, OnnxMethod)
    made = method.transform(path, checked(method.name, method.parameters, {}), context)
    assert run(made, {"image": case.inputs["image"][:3]})[0].shape == (3, 5)
