"""Attention layers of a network, and the removal of some of their heads. Imports torch; imported on use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin.networks import Forward, Inputs, layer_calls, replace

HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "nhead", "heads")
"""Attributes with the number of heads of a module with separate projections."""
WIDTHS = ("all_head_size", "inner_dim", "attn_dim")
"""Attributes with the width of all heads of such a module together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionLayer:
    """One attention layer of two heads or more.

    Attributes:
        name: Name of the module that has the number of heads.
        heads: Number of heads.
        projections: Names of the linear layers of queries, keys and values; empty for `nn.MultiheadAttention`.
        output: Name of the linear layer that reads the concatenated heads.
    """

    name: str
    heads: int
    projections: tuple[str, ...]
    output: str


def attention_layers(model: nn.Module, forward: Forward, inputs: Inputs) -> list[AttentionLayer]:
    """Return all attention layers of two heads or more, in the network's order.

    They are `nn.MultiheadAttention`, and modules that call three linear layers of one width and have their number of heads in an
    attribute (as those of Hugging Face); the next linear layer that is called is the output projection.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    called = list(dict.fromkeys(call.name for call in layer_calls(model, forward, inputs, linear)))
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            if module.num_heads > 1 and _has_one_matrix(module):
                layers.append(AttentionLayer(name=name, heads=module.num_heads, projections=(), output=f"{name}.out_proj"))
            continue
        heads = next((n for n in (getattr(module, key, None) for key in HEAD_COUNTS) if isinstance(n, int) and n > 1), None)
        own = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
        for start in sorted(called.index(child) for child in own if child in called) if heads else ():
            names = called[start : start + 4]
            if len(names) == 4 and set(names[1:3]) <= set(own) and _match([model.get_submodule(n) for n in names], heads or 1):
                layers.append(AttentionLayer(name=name, heads=heads or 1, projections=tuple(names[:3]), output=names[3]))
                break
    return layers


def _has_one_matrix(attention: nn.MultiheadAttention) -> bool:
    """Return True if the three projections are one matrix, and nothing is appended to keys and values."""
    return attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn


def _match(layers: Sequence[Any], heads: int) -> bool:
    """Return True if these linear layers are projections of queries, keys and values and the output of that many heads."""
    width = layers[0].out_features
    return width % heads == 0 and all(p.out_features == width for p in layers[:3]) and layers[3].in_features == width


def by_head(tensor: Tensor, heads: int, axis: int) -> Tensor:
    """Return the tensor with that axis split in two: heads, and positions in a head."""
    return tensor.reshape(*tensor.shape[:axis], heads, tensor.shape[axis] // heads, *tensor.shape[axis + 1 :])


def silence_heads(model: nn.Module, attention: AttentionLayer, heads: Sequence[int]) -> None:
    """Set the weights of the output projection that read those heads to zero, in place."""
    output: Any = model.get_submodule(attention.output)
    with torch.no_grad():
        output.weight.view(output.out_features, attention.heads, -1)[:, list(heads)] = 0


def remove_heads(model: nn.Module, attention: AttentionLayer, heads: Sequence[int]) -> None:
    """Remove those heads, in place."""
    kept = [head for head in range(attention.heads) if head not in set(heads)]
    module: Any = model.get_submodule(attention.name)
    if isinstance(module, nn.MultiheadAttention):
        replace(model, attention.name, PrunedMultiheadAttention(module, kept))
        for encoder in model.modules():
            if isinstance(encoder, nn.TransformerEncoder):
                encoder.use_nested_tensor = False  # only torch's own attention takes nested tensors
        return
    for name in attention.projections:
        layer: Any = model.get_submodule(name)
        layer.weight = _selected(layer.weight, attention.heads, kept, 0)
        layer.bias = None if layer.bias is None else _selected(layer.bias, attention.heads, kept, 0)
        layer.out_features = len(layer.weight)
    output: Any = model.get_submodule(attention.output)
    output.weight = _selected(output.weight, attention.heads, kept, 1)
    output.in_features = output.weight.shape[1]
    for key in (*HEAD_COUNTS, *WIDTHS):
        value = getattr(module, key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            setattr(module, key, value // attention.heads * len(kept))


def _selected(parameter: Tensor, heads: int, kept: Sequence[int], axis: int) -> nn.Parameter:
    """Return a parameter with the rows or columns of those heads."""
    index = torch.tensor(kept, device=parameter.device)
    selected = by_head(parameter.detach(), heads, axis).index_select(axis, index).flatten(axis, axis + 1)
    return nn.Parameter(selected, parameter.requires_grad)


class PrunedMultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` with some of its heads, narrower than the embedding, which torch's own does not allow.

    It is called as torch's own is. `_qkv_same_embed_dim` and `in_proj_bias` let `nn.TransformerEncoderLayer` call it instead of
    reading its weights.

    Args:
        full: Attention with one matrix for queries, keys and values; not changed.
        kept: Heads to keep, in order.
    """

    def __init__(self, full: nn.MultiheadAttention, kept: Sequence[int]) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = full.embed_dim, len(kept), full.head_dim
        self.batch_first, self.dropout = full.batch_first, full.dropout
        self._qkv_same_embed_dim, self.in_proj_bias = False, None
        self._full_heads, self._kept = full.num_heads, tuple(kept)
        rows = [part * full.num_heads + head for part in range(3) for head in kept]
        width = len(kept) * full.head_dim
        self.in_proj = nn.Linear(full.embed_dim, 3 * width, bias=full.in_proj_bias is not None)
        self.out_proj = nn.Linear(width, full.embed_dim, bias=full.out_proj.bias is not None)
        self.in_proj.weight = _selected(full.in_proj_weight, 3 * full.num_heads, rows, 0)
        if full.in_proj_bias is not None:
            self.in_proj.bias = _selected(full.in_proj_bias, 3 * full.num_heads, rows, 0)
        self.out_proj.weight = _selected(full.out_proj.weight, full.num_heads, kept, 1)
        if full.out_proj.bias is not None:
            self.out_proj.bias = nn.Parameter(full.out_proj.bias.detach().clone(), full.out_proj.bias.requires_grad)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute as `nn.MultiheadAttention.forward`; the attention weights are those of the remaining heads."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        self_attention = query is key and key is value
        if not batched:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._project(query, key, value, self_attention)
        mask = self._mask(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights:
            weights = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            weights = (weights if mask is None else weights + mask).softmax(-1)
            weights = functional.dropout(weights, self.dropout, self.training)
            attended = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            attended = functional.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        if not self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return output, weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor, self_attention: bool) -> list[Tensor]:
        """Return queries, keys and values, each of shape (N, heads, length, width of a head)."""
        if self_attention:
            parts = self.in_proj(query).chunk(3, -1)
        else:
            biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
            matrices = zip((query, key, value), self.in_proj.weight.chunk(3), biases, strict=True)
            parts = tuple(functional.linear(t, weight, bias) for t, weight, bias in matrices)
        return [by_head(part, self.num_heads, 2).transpose(1, 2) for part in parts]

    def _mask(self, mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Return both masks as one to add to the scores, broadcastable to (N, heads, queries, keys)."""
        total = None
        if mask is not None:
            if mask.dim() == 3:
                heads = mask.shape[0] // like.shape[0]
                mask = mask.reshape(-1, heads, *mask.shape[1:])
                mask = mask[:, list(self._kept)] if heads == self._full_heads else mask
            total = _additive(mask, like)
        if padding is not None:
            added = _additive(padding, like)[:, None, None, :]
            total = added if total is None else total + added
        return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return a boolean mask as zeros and minus infinities."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype)
