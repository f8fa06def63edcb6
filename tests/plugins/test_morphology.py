"""Block removal: what counts as a block, and which goes first."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError, Number, Refused
from orchestrator.plugin.networks import distance
from orchestrator_morphology.block_removal import BlockRemoval
from orchestrator_morphology.blocks import RemovedBlock, removable_blocks, remove

METHOD = BlockRemoval()


def forward(model: nn.Module, inputs: Any) -> Any:
    return model(*inputs.values())


def names(model: nn.Module, *shape: int) -> list[str]:
    return [block.name for block in removable_blocks(model.eval(), forward, {"x": torch.randn(2, *shape)})]


class Residual(nn.Module):
    """x + f(x), where f is a stack that keeps the shape itself."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(width, width), nn.ReLU()), nn.Sequential(nn.Linear(width, width)))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.body(x))


class InPlaceResidual(Residual):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return self.act(y)


class Named(nn.Module):
    """Blocks in a list, called by keyword, that answer with a tuple."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Residual()

        def forward(self, hidden: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
            return hidden + self.inner(hidden), None

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.Layer(), self.Layer()])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x, _ = layer(mask=None, hidden=x)
        return self.head(x)


@pytest.mark.parametrize("block", [Residual, InPlaceResidual])
def test_outermost_block_counts_and_stages_are_looked_into(block: type[Residual]) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(block(), block()), nn.Linear(8, 3))
    assert names(model, 4) == ["1.0", "1.1"]


def test_blocks_called_by_keyword_with_tuples_can_go() -> None:
    model = Named()
    assert names(model, 8) == ["layers.0", "layers.1"]
    blocks = removable_blocks(model, forward, {"x": torch.randn(2, 8)})
    remove(model, blocks)
    x = torch.randn(2, 8)
    torch.testing.assert_close(model(x), model.head(x))


def test_block_used_twice_or_changing_shape_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.shrink = Residual(), nn.Sequential(nn.Linear(8, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.shrink(self.block(self.block(x)))

    assert names(Twice(), 8) == []


def test_least_influential_block_goes_first(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    with torch.no_grad():
        case.model.second[1].pointwise.weight.mul_(1e-3)
    changed = METHOD.transform(case.copy(), {"blocks": 1}, case.context(tmp_path))
    assert isinstance(changed.second[1], RemovedBlock)
    assert sum(isinstance(m, RemovedBlock) for m in changed.modules()) == 1
    assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-2


def test_encoder_that_asks_its_first_layer_loses_layers(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    changed = METHOD.transform(case.copy(), {"blocks": 2}, case.context(tmp_path))
    assert len(changed.encoder.layers) == 1


def test_offer_narrows_to_what_the_network_has(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    blocks, order = METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))
    assert isinstance(blocks, Number) and (blocks.low, blocks.high, blocks.start) == (1, 2, 1)


def test_network_is_never_emptied(make_case: Any, tmp_path: Path) -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(12)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x).mean(1)

    with pytest.raises(Refused, match="no block"):
        METHOD.offer(Single().eval(), METHOD.parameters, make_case("lstm").context(tmp_path))


def test_more_blocks_than_there_are_is_an_error(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    with pytest.raises(MethodError, match="can lose 4 blocks, but got blocks=9"):
        METHOD.transform(case.copy(), {"blocks": 9}, case.context(tmp_path))


def test_passage_survives_pickle_and_copy() -> None:
    for passage in (
        RemovedBlock(),
        pickle.loads(pickle.dumps(RemovedBlock("hidden", 1))),
        copy.deepcopy(RemovedBlock("hidden", 1)),
    ):
        x = torch.randn(2, 3)
        if passage.keyword:
            assert passage(mask=None, hidden=x) == (x, None)
        else:
            assert passage(x, 1) is x
