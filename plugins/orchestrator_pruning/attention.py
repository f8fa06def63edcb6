"""Attention heads: where a network has them, and how to take some out.

Imported only where a network is at hand: it loads torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin.networks import Forward, Inputs, replace, run

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "nhead", "heads")
"""Attributes that hold the number of heads of a module with separate projections."""
WIDTHS = ("all_head_size", "inner_dim", "attn_dim")
"""Attributes that hold the width of all its heads together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """One attention layer.

    Attributes:
        name: Of the module that knows the number of heads.
        heads: How many there are.
        projections: Names of the linear layers that give queries, keys and values; empty for `nn.MultiheadAttention`.
        output: Name of the linear layer that reads the heads' results, head after head.
    """

    name: str
    heads: int
    projections: tuple[str, ...]
    output: str


def find(model: nn.Module, forward: Forward, inputs: Inputs) -> list[Attention]:
    """All attention layers of two heads and more, in the order of the network.

    They are `nn.MultiheadAttention`, and modules that call three linear layers of one width and hold their number of heads in an
    attribute (as those of Hugging Face do); the next linear layer that is called reads the heads.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) and module.num_heads > 1 and _plain(module):
            found[name] = Attention(name=name, heads=module.num_heads, projections=(), output=f"{name}.out_proj")
    called = _order(model, forward, inputs)
    for name, module in model.named_modules():
        heads = next((n for n in (getattr(module, key, None) for key in COUNTS) if isinstance(n, int) and n > 1), None)
        if heads is None or isinstance(module, nn.MultiheadAttention):
            continue
        own = [layer for layer, child in module.named_children() if isinstance(child, nn.Linear)]
        places = [called.index(f"{name}.{layer}" if name else layer) for layer in own if f"{name}.{layer}" in called]
        for start in sorted(places):
            names = called[start : start + 4]
            layers = [model.get_submodule(n) for n in names]
            if len(names) == 4 and start + 1 in places and start + 2 in places and _match(layers, heads):
                found[name] = Attention(name=name, heads=heads, projections=tuple(names[:3]), output=names[3])
                break
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    return [found[name] for name in sorted(found, key=order.__getitem__)]


def _plain(attention: nn.MultiheadAttention) -> bool:
    """Whether all three projections lie in one matrix, and nothing is appended to keys and values."""
    return attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn


def _match(layers: Sequence[nn.Module], heads: int) -> bool:
    """Whether these are linear layers for queries, keys, values and output of that many heads."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) < len(layers):
        return False
    width = linear[0].out_features
    return width % heads == 0 and all(p.out_features == width for p in linear[:3]) and linear[3].in_features == width


def _order(model: nn.Module, forward: Forward, inputs: Inputs) -> list[str]:
    """The names of all linear layers in the order in which they are first called."""
    called: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: called.setdefault(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        run(model, forward, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(called)


def by_head(tensor: Tensor, heads: int, axis: int) -> Tensor:
    """The same numbers with that axis split in two: heads, and places inside a head."""
    return tensor.reshape(*tensor.shape[:axis], heads, tensor.shape[axis] // heads, *tensor.shape[axis + 1 :])


def silence(model: nn.Module, attention: Attention, gone: Sequence[int]) -> None:
    """Let the output projection read nothing of those heads, in place."""
    output = model.get_submodule(attention.output)
    if isinstance(output, nn.Linear):
        with torch.no_grad():
            output.weight.view(output.out_features, attention.heads, -1)[:, list(gone)] = 0


def remove(model: nn.Module, attention: Attention, gone: Sequence[int]) -> None:
    """Take those heads out, in place."""
    stay = [head for head in range(attention.heads) if head not in set(gone)]
    module, output = model.get_submodule(attention.name), model.get_submodule(attention.output)
    if isinstance(module, nn.MultiheadAttention):
        replace(model, attention.name, FewerHeads(module, stay))
        for encoder in model.modules():
            if isinstance(encoder, nn.TransformerEncoder):
                encoder.use_nested_tensor = False  # nested tensors would be handed to torch's own attention only
        return
    with torch.no_grad():
        for name in attention.projections:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Linear):
                _keep(layer, attention.heads, stay, outputs=True)
        if isinstance(output, nn.Linear):
            _keep(output, attention.heads, stay, outputs=False)
    for key in (*COUNTS, *WIDTHS):
        value = getattr(module, key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            setattr(module, key, value // attention.heads * len(stay))


def _keep(layer: nn.Linear, heads: int, stay: Sequence[int], *, outputs: bool) -> None:
    """Keep the rows or columns of those heads."""
    weight = layer.weight.detach()
    trains = layer.weight.requires_grad
    if outputs:
        layer.weight = nn.Parameter(by_head(weight, heads, 0)[list(stay)].flatten(0, 1).clone(), trains)
        if layer.bias is not None:
            bias = by_head(layer.bias.detach(), heads, 0)[list(stay)].flatten()
            layer.bias = nn.Parameter(bias.clone(), layer.bias.requires_grad)
        layer.out_features = layer.weight.shape[0]
    else:
        layer.weight = nn.Parameter(by_head(weight, heads, 1)[:, list(stay)].flatten(1).clone(), trains)
        layer.in_features = layer.weight.shape[1]


class FewerHeads(nn.Module):
    """`nn.MultiheadAttention` with some of its heads: its width is no longer that of the embedding, which torch's own must have.

    It is called as torch's own is. `_qkv_same_embed_dim` and `in_proj_bias` tell `nn.TransformerEncoderLayer` to call it, and not
    to read its weights past it.

    Args:
        whole: With one matrix for queries, keys and values; not changed.
        stay: The heads that it keeps, in order.
    """

    def __init__(self, whole: nn.MultiheadAttention, stay: Sequence[int]) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = whole.embed_dim, len(stay), whole.head_dim
        self.batch_first, self.dropout = whole.batch_first, whole.dropout
        self._qkv_same_embed_dim, self.in_proj_bias = False, None
        self._before, self._stay = whole.num_heads, tuple(stay)
        weight, bias, heads, before = whole.in_proj_weight, whole.in_proj_bias, list(stay), 3 * whole.num_heads
        rows = [part * whole.num_heads + head for part in range(3) for head in heads]
        self.in_proj = nn.Linear(whole.embed_dim, 3 * len(stay) * whole.head_dim, bias=bias is not None)
        self.out_proj = nn.Linear(len(stay) * whole.head_dim, whole.embed_dim, bias=whole.out_proj.bias is not None)
        with torch.no_grad():
            self.in_proj.weight.copy_(by_head(weight, before, 0)[rows].flatten(0, 1))
            self.out_proj.weight.copy_(by_head(whole.out_proj.weight, whole.num_heads, 1)[:, heads].flatten(1))
            if bias is not None:
                self.in_proj.bias.copy_(by_head(bias, before, 0)[rows].flatten())
            if whole.out_proj.bias is not None:
                self.out_proj.bias.copy_(whole.out_proj.bias)
        self.in_proj.requires_grad_(weight.requires_grad)
        self.out_proj.requires_grad_(whole.out_proj.weight.requires_grad)

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
        """As `nn.MultiheadAttention.forward`; the weights are those of the heads that are left."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        one = query is key and key is value
        if not batched:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._projected(query, key, value, one)
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

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, one: bool) -> list[Tensor]:
        """Queries, keys and values, each of shape (N, heads, length, width of a head)."""
        if one:
            parts = self.in_proj(query).chunk(3, -1)
        else:
            biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
            matrices = zip((query, key, value), self.in_proj.weight.chunk(3), biases, strict=True)
            parts = tuple(functional.linear(t, weight, bias) for t, weight, bias in matrices)
        return [by_head(part, self.num_heads, 2).transpose(1, 2) for part in parts]

    def _mask(self, mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Both masks as one that is added to the products, broadcast to (N, heads, queries, keys)."""
        total = None
        if mask is not None:
            if mask.dim() == 3:
                heads = mask.shape[0] // like.shape[0]
                mask = mask.reshape(-1, heads, *mask.shape[1:])
                mask = mask[:, list(self._stay)] if heads == self._before else mask
            total = _added(mask, like)
        if padding is not None:
            added = _added(padding, like)[:, None, None, :]
            total = added if total is None else total + added
        return total


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as zeros and minus infinities."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype)
