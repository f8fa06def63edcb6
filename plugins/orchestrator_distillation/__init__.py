"""Training of a changed torch network with the original as its teacher."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_distillation.distillation import Distillation


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the methods of this package."""
    return [Distillation()]
