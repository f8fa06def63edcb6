"""Common declarations of the pruning methods."""

from orchestrator.plugin import Target, TorchMethod


class PruningMethod(TorchMethod):
    """Base of the methods of the family "pruning"."""

    family = "pruning"
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})


def channel_multiple(target: Target) -> int:
    """Return the channel multiple of the target's float32 kernels, or that of its int8 kernels if float32 has none."""
    multiple = target.channel_multiple("float32")
    return multiple if multiple > 1 else target.channel_multiple("int8")
