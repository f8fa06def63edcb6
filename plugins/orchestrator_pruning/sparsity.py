"""Sparse weights: single weights that are zero, in a network of unchanged shape."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
)

if TYPE_CHECKING:
    from torch import nn

PATTERNS: Mapping[str, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}
"""N:M patterns: N weights of M neighbours along the input channels stay."""


class Sparsity(TorchMethod):
    """Sets the weights of least magnitude to zero, and keeps them there through all later training.

    The runtimes of today's profiles have no kernels for sparse weights: a sparse network is not a bit faster there, and its file
    is as long. What gains is the *compressed* size (zip, over-the-air updates, flash with compression), and chips with N:M units.
    """

    name = "sparsity"
    version = 1
    family = "pruning"
    reads = frozenset[str]()
    summary = "Zeroes single weights of least magnitude, freely (Han et al. 2015) or N of every M (Mishra et al. 2021)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(
            name="pattern",
            help="which weights may go: any, or just two of every four or four of every eight along the input channels; only the "
            "compressed size gains by it, no runtime is faster",
            choices=("unstructured", "2:4", "4:8"),
        ),
        Number(
            name="ratio",
            cheaper="high",
            help="share of each layer's weights that becomes zero; the patterns 2:4 and 4:8 zero one half",
            only_if=("pattern", "unstructured"),
            low=0.3,
            high=0.9,
            step=0.1,
            default=0.5,
            bounds=(0.01, 0.99),
        ),
    )
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})
    keeps = frozenset({"zeros"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """Return the search ranges for this network."""
        from orchestrator_pruning.magnitude import fits, weights

        layers = weights(model).values()
        if not layers:
            raise Refused("the network has no convolution and no linear layer whose weights could become sparse")
        patterns = tuple(p for p in ("unstructured", *PATTERNS) if p not in PATTERNS or any(fits(w, PATTERNS[p]) for w in layers))
        return narrowed(parameters, pattern={"choices": patterns})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        """Describe a step with these parameters."""
        if parameters["pattern"] == "unstructured":
            return f"{percent(parameters['ratio'])} of the weights zeroed by magnitude"
        return f"weights zeroed by magnitude in the pattern {parameters['pattern']}"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        import torch

        from orchestrator.plugin.masks import keep_zeros
        from orchestrator_pruning.magnitude import fits, largest, largest_of, weights

        pattern, layers = PATTERNS.get(str(parameters["pattern"])), weights(model)
        if pattern is None:
            masks = {name: largest(weight.detach(), 1 - float(parameters["ratio"])) for name, weight in layers.items()}
        else:
            masks = {name: largest_of(weight.detach(), *pattern) for name, weight in layers.items() if fits(weight, pattern)}
        if not masks:
            raise MethodError(f"{self.name}: no layer's weights can take the pattern {parameters['pattern']}")
        with torch.no_grad():
            for name, mask in masks.items():
                layers[name].mul_(mask)
        keep_zeros(model, masks)
        return model
