"""Morphology: methods that change the shape of a torch network."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_morphology.block_removal import BlockRemoval


@hookimpl
def orchestrator_methods() -> list[Method]:
    """The methods of this package."""
    return [BlockRemoval()]
