"""Common declarations of the morphology methods."""

from orchestrator.plugin import TorchMethod


class MorphologyMethod(TorchMethod):
    """Base of the methods of the family "morphology"; a search includes them only by name unless they declare otherwise."""

    family = "morphology"
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False
