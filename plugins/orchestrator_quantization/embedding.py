"""Embedding tables in 8 bits: integer rows are gathered, and only these are dequantized.

One scale for each row, as in Guan et al. 2019, "Post-Training 4-bit Quantization on Embedding Tables": the ranges of rows differ,
and one scale for the table would fit the largest. Imports onnx; imported on use.
"""

from typing import Any

import numpy as np
import onnx

from orchestrator.plugin.onnx_graph import Array, OnnxGraph, attribute

LEAST_ELEMENTS = 1024
"""Size below which a table stays in float: the nodes would be larger than the saved bytes."""


def embedding_lookups(graph: OnnxGraph) -> list[Any]:
    """Return the nodes that gather rows of a large float table."""
    lookups = []
    for node in graph.nodes:
        table = graph.weight(node, 0) if node.op_type == "Gather" else None
        if table is not None and table.ndim == 2 and attribute(node, "axis", 0) == 0 and table.size >= LEAST_ELEMENTS:
            lookups.append(node)
    return lookups


def quantize_embeddings(graph: OnnxGraph) -> int:
    """Quantize the tables of all `embedding_lookups` to INT8, in place; return their number."""
    tables: dict[str, tuple[str, str]] = {}
    lookups = {node.name for node in embedding_lookups(graph)}
    nodes: list[Any] = []
    for node in graph.nodes:
        if node.name not in lookups:
            nodes.append(node)
            continue
        name = node.input[0]
        if name not in tables:
            values, scales = _rows(graph.array(name))
            tables[name] = graph.add_constant(f"{name}_int8", values), graph.add_constant(f"{name}_scale", scales)
        nodes += _lookup(node, *tables[name])
    graph.nodes = nodes
    graph.remove_unused_constants()
    return len(tables)


def _rows(table: Array) -> tuple[Array, Array]:
    """Return integers and one scale for each row, shapes (rows, width) and (rows, 1)."""
    scales = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def _lookup(node: Any, values: str, scales: str) -> list[Any]:
    """Return nodes that gather and dequantize rows."""
    make, name, indices = onnx.helper.make_node, node.name, node.input[1]
    return [
        make("Gather", [values, indices], [f"{name}.integers"], f"{name}.integers", axis=0),
        make("Gather", [scales, indices], [f"{name}.scales"], f"{name}.scales", axis=0),
        make("Cast", [f"{name}.integers"], [f"{name}.floats"], f"{name}.floats", to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{name}.floats", f"{name}.scales"], [node.output[0]], name),
    ]
