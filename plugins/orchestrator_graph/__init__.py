"""Methods that replace operators of an exported network by equivalent ones."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_graph.rewriting import GraphRewriting


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the methods of this package."""
    return [GraphRewriting()]
