"""Methods that reduce the precision of a network's numbers."""

from orchestrator.plugin import Method, hookimpl
from orchestrator_quantization.dynamic_int8 import DynamicInt8
from orchestrator_quantization.float16 import Float16
from orchestrator_quantization.qat_int8 import QatInt8
from orchestrator_quantization.static_int8 import StaticInt8
from orchestrator_quantization.weight_only import WeightOnly
from orchestrator_quantization.weight_sharing import WeightSharing


@hookimpl
def orchestrator_methods() -> list[Method]:
    """Return the methods of this package."""
    return [StaticInt8(), QatInt8(), DynamicInt8(), WeightOnly(), Float16(), WeightSharing()]
