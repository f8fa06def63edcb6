"""Unstructured and N:M sparsity: single weights set to zero, in a network of unchanged shape."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, Choice, MethodError, Number, Parameters, ParameterValues, Refused, narrowed, percent
from orchestrator_pruning.base import PruningMethod

if TYPE_CHECKING:
    from torch import nn

PATTERNS: Mapping[str, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}
"""N:M patterns: N weights of M neighbours along the input channels stay."""


class Sparsity(PruningMethod):
    """Sets the weights of least magnitude to zero (Han et al. 2015), and keeps them at zero through all later training.

    The runtimes of today's profiles have no kernels for sparse weights: a sparse network is not faster there, and its file has
    the same size. The *compressed* size is smaller (zip, over-the-air updates, compressed flash), and chips with N:M units gain
    speed.
    """

    name = "sparsity"
    version = 1
    reads = frozenset[str]()
    summary = "Zeroes single weights of least magnitude, freely (Han et al. 2015) or N of every M (Mishra et al. 2021)."
    parameters: ClassVar[Parameters] = (
        Choice(
            name="pattern",
            help="removable weights: any, or two of every four or four of every eight along the input channels; it reduces the "
            "compressed size, no runtime is faster",
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
    keeps = frozenset({"zeros"})
    usual = False

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_pruning.magnitude import fits, weights

        layers = weights(model).values()
        if not layers:
            raise Refused("the network has no convolution and no linear layer whose weights could become sparse")
        patterns = tuple(p for p in ("unstructured", *PATTERNS) if p not in PATTERNS or any(fits(w, PATTERNS[p]) for w in layers))
        return narrowed(parameters, pattern={"choices": patterns})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        if parameters["pattern"] == "unstructured":
            return f"{percent(parameters['ratio'])} of the weights zeroed by magnitude"
        return f"weights zeroed by magnitude in the pattern {parameters['pattern']}"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
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
