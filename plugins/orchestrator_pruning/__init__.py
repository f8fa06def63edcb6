"""Methods that remove weights or structure from a torch network."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_pruning.channel import ChannelPruning
from orchestrator_pruning.group import GroupPruning
from orchestrator_pruning.heads import HeadPruning
from orchestrator_pruning.slimming import NetworkSlimming
from orchestrator_pruning.sparsity import Sparsity
from orchestrator_pruning.width import WidthMultiplier


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the methods of this package."""
    return [ChannelPruning(), GroupPruning(), NetworkSlimming(), HeadPruning(), Sparsity(), WidthMultiplier()]
