"""Block-wise weight-only quantization to 8 or 4 bits; activations stay in float.

Dettmers and Zettlemoyer 2023, "The case for 4-bit precision: k-bit Inference Scaling Laws": small blocks matter more than the
distribution of the values in one. The products run in onnxruntime's MatMulNBits.
"""

from pathlib import Path
from typing import Any, ClassVar

from orchestrator.plugin import BuildContext, Choice, Parameters, ParameterValues, Refused, Target
from orchestrator_quantization.base import QuantizationMethod, require_onnxruntime
from orchestrator_quantization.model_files import load_graph, quantizer_errors, save

LEAST_SHARE = 0.5
ACCURACY_LEVEL = 4
"""Accuracy level of MatMulNBits at which blocks of activations are rounded to 8 bits: the fast one on CPUs."""


class WeightOnly(QuantizationMethod):
    """Matrix products with weights in blocks of few bits (Dettmers and Zettlemoyer 2023), and embedding tables in 8 bits."""

    name = "weight-only"
    version = 1
    reads = frozenset[str]()
    summary = "Matrix products with weights in blocks of 8 or 4 bits, for transformers (Dettmers and Zettlemoyer 2023)."
    parameters: ClassVar[Parameters] = (
        Choice(name="bits", cheaper="low", help="bits of a weight; embedding tables always have 8", choices=(8, 4)),
        Choice(name="block_size", help="number of weights with one scale and zero point", choices=(32, 128)),
    )

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        require_onnxruntime(target, self.name)
        return self.parameters

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_quantization.embedding import embedding_lookups

        graph = load_graph(model, context, self.name)
        names = {node.input[1] for node in _products(graph)} | {node.input[0] for node in embedding_lookups(graph)}
        quantized, total = sum(graph.array(name).size for name in names), graph.float_elements()
        if not quantized or quantized < LEAST_SHARE * total:
            raise Refused(
                f"{self.name}: matrix products and embedding tables hold {quantized} of the {total} weights, but it pays only "
                f"where they hold at least half"
            )
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"weights in {parameters['bits']} bits, in blocks of {parameters['block_size']}"

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        from orchestrator_quantization.embedding import quantize_embeddings

        graph = load_graph(model, context, self.name)
        with quantizer_errors(self.name):
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantize_embeddings(graph)
            _replace_gemms(graph)
            quantizer = MatMulNBitsQuantizer(
                graph.model,
                bits=int(parameters["bits"]),
                block_size=int(parameters["block_size"]),
                accuracy_level=ACCURACY_LEVEL,
                op_types_to_quantize=("MatMul",),
            )
            quantizer.process()
        return save(quantizer.model.model, context, self.name)


def _products(graph: Any) -> list[Any]:
    """Return the matrix products with constant weights that MatMulNBits can replace."""
    products = []
    for node in graph.nodes:
        weight = graph.weight(node, 1) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and weight.ndim == 2 and (node.op_type == "MatMul" or _is_plain(node)):
            products.append(node)
    return products


def _is_plain(gemm: Any) -> bool:
    """Return True if a Gemm is x W + b."""
    from orchestrator.plugin.onnx_graph import attribute

    return not attribute(gemm, "transA", 0) and attribute(gemm, "alpha", 1.0) == attribute(gemm, "beta", 1.0) == 1


def _replace_gemms(graph: Any) -> None:
    """Replace each plain Gemm by a product and a sum, because the quantizer takes products only."""
    import onnx

    from orchestrator.plugin.onnx_graph import attribute

    gemms = {node.name for node in _products(graph) if node.op_type == "Gemm"}
    nodes: list[Any] = []
    for node in graph.nodes:
        if node.name not in gemms:
            nodes.append(node)
            continue
        weight = node.input[1]
        if attribute(node, "transB", 0):
            weight = graph.add_constant(f"{weight}_transposed", graph.array(weight).T)
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.name}.product" if biased else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], weight], [product], f"{node.name}.product"))
        if biased:
            nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], node.name))
    graph.nodes = nodes
    graph.remove_unused_constants()
