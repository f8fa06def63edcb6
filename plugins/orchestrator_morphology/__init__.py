"""Methods that change the structure of a torch network.

No method folds batch norms: the exporter folds them for every candidate.
"""

from orchestrator.plugin import Method, hookimpl
from orchestrator_morphology.activation_replacement import ActivationReplacement
from orchestrator_morphology.block_removal import BlockRemoval
from orchestrator_morphology.evolution import Evolution
from orchestrator_morphology.expansion_ratio import ExpansionRatio
from orchestrator_morphology.kernel_shrink import KernelShrink
from orchestrator_morphology.low_rank import LowRank
from orchestrator_morphology.net2deeper import Net2Deeper
from orchestrator_morphology.net2wider import Net2Wider
from orchestrator_morphology.resolution import Resolution
from orchestrator_morphology.separable_convolution import SeparableConvolution
from orchestrator_morphology.student import Student


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the methods of this package."""
    return [
        BlockRemoval(),
        Student(),
        KernelShrink(),
        ExpansionRatio(),
        LowRank(),
        SeparableConvolution(),
        ActivationReplacement(),
        Resolution(),
        Net2Wider(),
        Net2Deeper(),
        Evolution(),
    ]
