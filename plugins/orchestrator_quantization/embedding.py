"""Embedding tables in 8 bits: rows are gathered as integers, and only those that were gathered become floats.

One scale for each row, as Guan et al. 2019, "Post-Training 4-bit Quantization on Embedding Tables", have it: rows differ in
length, and a scale for the whole table would serve the longest. Loads onnx: imported where a file is at hand.
"""

from typing import Any

import numpy as np
import onnx

from orchestrator_quantization.graph import Array, Graph

LEAST_ELEMENTS = 1024
"""Tables below this stay as they are: the nodes would weigh more than the bytes saved."""


def tables(graph: Graph) -> list[Any]:
    """The nodes that look rows up in a float table worth the trouble."""
    found = []
    for node in graph.nodes:
        table = graph.constant(node, 0) if node.op_type == "Gather" else None
        axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
        if table is not None and table.ndim == 2 and axis == 0 and table.size >= LEAST_ELEMENTS:
            found.append(node)
    return found


def quantize_tables(graph: Graph) -> int:
    """Put all tables of `tables` into INT8, in place.

    Returns:
        Tables that are integers now.
    """
    made: dict[str, tuple[str, str]] = {}
    found = {node.name for node in tables(graph)}
    nodes = graph.nodes
    del graph.model.graph.node[:]
    for node in nodes:
        if node.name not in found:
            graph.model.graph.node.append(node)
            continue
        name = node.input[0]
        if name not in made:
            values, scales = _rows(graph.array(name))
            made[name] = graph.add(f"{name}_int8", values), graph.add(f"{name}_scale", scales)
        graph.model.graph.node.extend(_lookup(node, *made[name]))
    graph.prune()
    return len(made)


def _rows(table: Array) -> tuple[Array, Array]:
    """Integers, and one scale for each row: shapes (rows, width) and (rows, 1)."""
    scales = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def _lookup(node: Any, values: str, scales: str) -> list[Any]:
    """Nodes that give what the lookup gave."""
    make, name, indices = onnx.helper.make_node, node.name, node.input[1]
    return [
        make("Gather", [values, indices], [f"{name}.integers"], f"{name}.integers", axis=0),
        make("Gather", [scales, indices], [f"{name}.scales"], f"{name}.scales", axis=0),
        make("Cast", [f"{name}.integers"], [f"{name}.floats"], f"{name}.floats", to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{name}.floats", f"{name}.scales"], [node.output[0]], name),
    ]
