"""Weights alone in 8 or 4 bits, a scale for each block of them; activations stay in float.

Dettmers and Zettlemoyer 2023, "The case for 4-bit precision: k-bit Inference Scaling Laws", tell that small blocks matter more
than how the numbers within one are spread. The products run in onnxruntime's MatMulNBits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.plugin import BuildContext, Choice, OnnxMethod, Parameter, ParameterValue, Refused, Target
from orchestrator_quantization.files import opened, quantizing, tried

LEAST_SHARE = 0.5
INTEGER_PRODUCTS = 4
"""MatMulNBits' accuracy level in which a block of activations is rounded to 8 bits: its fast one on CPUs."""


class WeightOnly(OnnxMethod):
    """Matrix products with weights in blocks of few bits, embedding tables in 8."""

    name = "weight-only"
    version = 1
    family = "quantization"
    reads = frozenset[str]()
    summary = "Matrix products with weights in blocks of 8 or 4 bits, for transformers (Dettmers and Zettlemoyer 2023)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="bits", cheaper="low", help="bits of a weight; embedding tables always have 8", choices=(8, 4)),
        Choice(name="block_size", help="weights that share a scale and a zero point", choices=(32, 128)),
    )
    after = frozenset({"pruning", "morphology", "distillation", "graph"})

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        if target.runtime != "onnxruntime":
            raise Refused(f"{self.name}: its operators run in onnxruntime only, but the target's runtime is {target.runtime}")
        return self.parameters

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_quantization.embedding import tables

        graph = opened(model, context, self.name)
        found = {name: graph.array(name).size for name in [n.input[1] for n in _products(graph)]}
        found |= {node.input[0]: graph.array(node.input[0]).size for node in tables(graph)}
        held, whole = sum(found.values()), graph.weights()
        if not held or held < LEAST_SHARE * whole:
            raise Refused(
                f"{self.name}: matrix products and embedding tables hold {held} of the {whole} weights, but it pays only where "
                f"they hold at least half"
            )
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"weights in {parameters['bits']} bits, in blocks of {parameters['block_size']}"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        import onnx

        from orchestrator_quantization.embedding import quantize_tables

        graph = opened(model, context, self.name)
        output = context.workspace / f"{self.name}.onnx"
        with quantizing(self.name):
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantize_tables(graph)
            _plain_products(graph)
            quantizer = MatMulNBitsQuantizer(
                graph.model,
                bits=int(parameters["bits"]),
                block_size=int(parameters["block_size"]),
                accuracy_level=INTEGER_PRODUCTS,
                op_types_to_quantize=("MatMul",),
            )
            quantizer.process()
            onnx.save(quantizer.model.model, str(output))
        return tried(output, context, self.name)


def _products(graph: Any) -> list[Any]:
    """Matrix products with constant weights that MatMulNBits can take over."""
    found = []
    for node in graph.nodes:
        weight = graph.constant(node, 1) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and weight.ndim == 2 and (node.op_type == "MatMul" or _plain(node)):
            found.append(node)
    return found


def _plain(node: Any) -> bool:
    """Whether a Gemm is x W + b."""
    numbers = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
    return not numbers.get("transA") and numbers.get("alpha", 1.0) == 1 and numbers.get("beta", 1.0) == 1


def _plain_products(graph: Any) -> None:
    """Put a product and a sum in the place of each Gemm, as the quantizer knows products only."""
    import onnx

    gemms = {node.name for node in _products(graph) if node.op_type == "Gemm"}
    nodes = graph.nodes
    del graph.model.graph.node[:]
    for node in nodes:
        if node.name not in gemms:
            graph.model.graph.node.append(node)
            continue
        weight = node.input[1]
        if any(a.name == "transB" and a.i for a in node.attribute):
            weight = graph.add(f"{weight}_transposed", graph.array(weight).T)
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.name}.product" if biased else node.output[0]
        graph.model.graph.node.append(onnx.helper.make_node("MatMul", [node.input[0], weight], [product], f"{node.name}.product"))
        if biased:
            graph.model.graph.node.append(onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], node.name))
    graph.prune()
