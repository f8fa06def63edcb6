"""Head pruning: what is left computes what the whole computes with those heads silenced."""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError, Number
from orchestrator.plugin.networks import same
from orchestrator.plugin.parameters import checked
from orchestrator_pruning.attention import PrunedMultiheadAttention, attention_layers, remove_heads, silence_heads
from orchestrator_pruning.heads import HeadPruning

METHOD = HeadPruning()


def values(**given: Any) -> dict[str, Any]:
    return checked(METHOD.name, METHOD.parameters, given)


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(**inputs)


class Written(nn.Module):
    """Attention as it is written with separate projections; `fixed` counts on the width of the stream."""

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.num_heads, self.inner_dim, self.fixed = 4, 24, fixed
        self.to_q, self.to_k, self.to_v = (nn.Linear(16, 24, bias=k > 0) for k in range(3))
        self.to_out = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for p in (self.to_q, self.to_k, self.to_v))
        attended = ((q @ k.transpose(-1, -2) * 6**-0.5).softmax(-1) @ v).transpose(1, 2)
        return self.to_out(attended.reshape(*x.shape[:2], 24 if self.fixed else self.inner_dim))


class Encoder(nn.Module):
    """Two attentions, a stream, a head."""

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Written(fixed=fixed) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


def written(make_case: Any, tmp_path: Path, *, fixed: bool = False) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = Encoder(fixed=fixed).eval()
    inputs = {"x": torch.randn(8, 5, 16)}
    context = make_case("plain-cnn").context(
        tmp_path,
        original=model,
        example={"x": inputs["x"][:2]},
        forward=forward,
        samples=lambda *_: iter([(inputs, torch.arange(8) % 5)]),
    )
    return model, context


@pytest.mark.parametrize("arguments", [{}, {"batch_first": False}, {"bias": False}, {"norm_first": True}])
def test_encoder_without_heads_equals_the_one_with_silenced_heads(arguments: Any) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, **{"batch_first": True, **arguments})
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    inputs = {"src": torch.randn(3, 3, 32)}
    silenced, without = copy.deepcopy(model), copy.deepcopy(model)
    for attention in attention_layers(model, forward, inputs):
        silence_heads(silenced, attention, [0, 2])
        remove_heads(without, attention, [0, 2])
    with torch.no_grad():  # once through the fast path of the layer, once past it
        assert same([silenced(**inputs)], [without(**inputs)])
    assert same([silenced(**inputs).detach()], [without(**inputs).detach()])
    assert not same([model(**inputs).detach()], [without(**inputs).detach()])
    assert without.layers[0].self_attn.in_proj.out_features == 48
    without.train()(**inputs).sum().backward()
    assert all(p.grad is not None for p in without.parameters())


def test_encoder_that_nests_padded_inputs_runs_without_heads() -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its nested tensors a prototype
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
        inputs = {"src": torch.randn(2, 3, 32), "src_key_padding_mask": torch.tensor([[False] * 3, [False, False, True]])}
        silenced, without = copy.deepcopy(model), copy.deepcopy(model)
        for attention in attention_layers(model, forward, inputs):
            silence_heads(silenced, attention, [1])
            remove_heads(without, attention, [1])
        with torch.no_grad():
            first, second = silenced(**inputs), without(**inputs)
    assert same([first[0], first[1, :2]], [second[0], second[1, :2]])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "float", "heads", "padding", "both"])
def test_attention_is_called_as_torchs_own(batch_first: bool, batched: bool, need_weights: bool, mask: str) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(24, 4, batch_first=batch_first).eval()
    query, memory = torch.randn(2, 5, 24), torch.randn(2, 6, 24)
    masks: dict[str, Any] = {"need_weights": need_weights}
    if mask in ("causal", "both"):
        masks["attn_mask"] = torch.ones(5, 6, dtype=torch.bool).triu(2)
    if mask == "float":
        masks["attn_mask"] = torch.randn(5, 6)
    if mask == "heads":
        masks["attn_mask"] = torch.randn((2 if batched else 1) * 4, 5, 6)
    if mask in ("padding", "both"):
        masks["key_padding_mask"] = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    if not batched:
        query, memory = query[0], memory[0]
        masks = {k: v[0] if k == "key_padding_mask" else v for k, v in masks.items()}
    elif not batch_first:
        query, memory = query.transpose(0, 1), memory.transpose(0, 1)
    fewer = PrunedMultiheadAttention(whole, [1, 2]).eval()
    with torch.no_grad():
        whole.out_proj.weight.view(24, 4, 6)[:, [0, 3]] = 0
        expected, every = whole(query, memory, memory, average_attn_weights=False, **masks)
        found, weights = fewer(query, memory, memory, average_attn_weights=False, **masks)
    torch.testing.assert_close(found, expected)
    if need_weights:
        torch.testing.assert_close(weights, every[..., [1, 2], :, :])
    else:
        assert weights is None


def test_causal_hint_needs_a_mask_as_torchs_own_does() -> None:
    fewer = PrunedMultiheadAttention(nn.MultiheadAttention(8, 2), [0])
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        fewer(*[torch.randn(2, 1, 8)] * 3, is_causal=True)


def test_separate_projections_lose_whole_heads(make_case: Any, tmp_path: Path) -> None:
    model, context = written(make_case, tmp_path)
    assert [(a.name, a.heads, a.output) for a in attention_layers(model, forward, context.example)] == [
        ("layers.0", 4, "layers.0.to_out"),
        ("layers.1", 4, "layers.1.to_out"),
    ]
    pruned = METHOD.transform(copy.deepcopy(model), values(ratio=0.5), context)
    assert sum(layer.num_heads for layer in pruned.layers) == 4
    for layer in pruned.layers:
        assert layer.inner_dim == layer.to_q.out_features == layer.to_v.bias.numel() == layer.to_out.in_features
        assert layer.inner_dim == 6 * layer.num_heads
    assert pruned(**context.example).shape == (2, 5)


@pytest.mark.parametrize("importance", ["taylor", "l2"])
def test_head_that_nothing_reads_goes_first(importance: str, make_case: Any, tmp_path: Path) -> None:
    model, context = written(make_case, tmp_path)
    with torch.no_grad():
        model.layers[1].to_out.weight.view(16, 4, 6)[:, 2] = 0
    pruned = METHOD.transform(copy.deepcopy(model), values(ratio=0.12, importance=importance), context)
    assert [layer.num_heads for layer in pruned.layers] == [4, 3]
    assert same([model(**context.example).detach()], [pruned(**context.example).detach()])
    kept = model.layers[1].to_v.weight.view(4, 6, 16)[[0, 1, 3]].flatten(0, 1)
    assert torch.equal(pruned.layers[1].to_v.weight, kept)


def test_each_layer_keeps_a_head(make_case: Any, tmp_path: Path) -> None:
    model, context = written(make_case, tmp_path)
    pruned = METHOD.transform(copy.deepcopy(model), values(ratio=0.95), context)
    assert [layer.num_heads for layer in pruned.layers] == [1, 1]


def test_frozen_projections_stay_frozen(make_case: Any, tmp_path: Path) -> None:
    model, context = written(make_case, tmp_path)
    model.layers.requires_grad_(False)
    pruned = METHOD.transform(copy.deepcopy(model), values(ratio=0.5), context)
    assert {name for name, p in pruned.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}


def test_offer_starts_at_one_head_and_leaves_one_a_layer(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")  # three layers of four heads
    ratio = next(p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path)) if isinstance(p, Number))
    assert (ratio.low, ratio.high) == (0.1, 0.6)


def test_networks_that_count_on_all_heads_are_refused_with_the_reason(make_case: Any, tmp_path: Path) -> None:
    model, context = written(make_case, tmp_path, fixed=True)
    with pytest.raises(MethodError, match=r"layers\.1 does not run with fewer heads: RuntimeError: shape"):
        METHOD.offer(model, METHOD.parameters, context)


def test_networks_without_attention_are_refused(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    with pytest.raises(MethodError, match="no attention of several heads"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))
    with pytest.raises(MethodError, match="head-pruning: the network has no attention"):
        METHOD.transform(case.copy(), values(), case.context(tmp_path))


def test_transform_says_so_when_no_head_would_go(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with pytest.raises(MethodError, match=r"ratio=0\.02 removes none of 12 heads"):
        METHOD.transform(case.copy(), values(ratio=0.02), case.context(tmp_path))
