"""Graph rewriting: what is rewritten, that it computes the same, and what is left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.building.export import export_onnx
from orchestrator.plugin import Refused
from orchestrator_graph.rewriting import GraphRewriting

METHOD = GraphRewriting()


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_padded_shortcut_becomes_a_convolution_of_the_same_values(
    make_case: Any, exported: Any, run: Any, tmp_path: Path
) -> None:
    case, before = make_case("residual-cnn"), exported("residual-cnn")
    after = METHOD.transform(before, {}, case.context(tmp_path))
    inputs = {"image": case.inputs["image"][:5]}
    assert {"Slice", "Pad", "ReduceMean"} <= set(operators(before))
    assert not {"Slice", "Pad", "ReduceMean"} & set(operators(after))
    assert operators(after).count("Conv") == operators(before).count("Conv") + 1
    np.testing.assert_allclose(run(after, inputs)[0], run(before, inputs)[0], rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(onnx.load(after), full_check=True)


def test_network_without_such_operators_is_refused(make_case: Any, exported: Any, tmp_path: Path) -> None:
    for name in ("plain-cnn", "transformer", "lstm"):
        with pytest.raises(Refused, match="no slice, padding or mean"):
            METHOD.offer(exported(name), METHOD.parameters, make_case(name).context(tmp_path))


class Copies(nn.Module):
    """One strided copy that ends in max pooling, and copies that must stay as they are."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        spatial = functional.pad(x, (1, 1, 0, 0, 2, 2))  # rows and columns too
        ones = functional.pad(x, (0, 0, 0, 0, 2, 2), value=1.0)
        shifted = x[:, :, 1::2, ::2]
        return x[:, :, ::2, ::3].relu(), spatial, ones, shifted, x.mean((1, 2))


def test_only_copies_that_are_equal_to_a_pooling_are_rewritten(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "copies.onnx"
    x = torch.randn(2, 3, 9, 9)
    export_onnx(Copies().eval(), {"x": x}, path)

    class Context:
        workspace, example = tmp_path / "work", {"x": x}

    after = METHOD.transform(path, {}, Context())  # type: ignore[arg-type]
    kinds = operators(after)
    # Of the shifted copy, the rows stay a slice; its columns begin at the first and become a pooling.
    assert kinds.count("MaxPool") == 2 and kinds.count("Pad") == 2 and "ReduceMean" in kinds and kinds.count("Slice") == 1
    for first, second in zip(run(path, {"x": x.numpy()}), run(after, {"x": x.numpy()}), strict=True):
        np.testing.assert_array_equal(first, second)


def test_original_file_stays_as_it_is(make_case: Any, exported: Any, tmp_path: Path) -> None:
    before = exported("residual-cnn").read_bytes()
    METHOD.transform(exported("residual-cnn"), {}, make_case("residual-cnn").context(tmp_path))
    assert exported("residual-cnn").read_bytes() == before
