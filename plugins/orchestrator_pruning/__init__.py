"""Pruning: methods that remove weights or structure from a torch network."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_pruning.channel import ChannelPruning
from orchestrator_pruning.group import GroupPruning


@hookimpl
def orchestrator_methods() -> list[Method]:
    """The methods of this package."""
    return [ChannelPruning(), GroupPruning()]
