"""Computing the shapes that a graph computes: exporters write sizes of dynamic axes as little graphs of integer arithmetic.

onnx propagates the values of some such operators and stops at others (Reshape of a scalar, which torch writes for every size).
With all inputs' shapes settled these little graphs are constants, so the rest is evaluated by onnx's own reference.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper

LARGEST = 1024
"""Elements; no shape is larger, and weights are no business of this module."""


def fold_shapes(graph: Any, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Turn every node that follows from shapes and small constants alone into an initializer, in place.

    Args:
        graph: An onnx.GraphProto that nobody else holds.
        shapes: The shapes known so far, by tensor name.

    Returns:
        Whether anything was folded, so that another round of inference can know more.
    """
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if _has_data(t)}
    kept: list[Any] = []
    folded: dict[str, np.ndarray[Any, Any]] = {}
    for node in graph.node:
        results = _evaluated(node, values, shapes)
        if results is None:
            kept.append(node)
        else:
            folded |= results
            values |= results
    if folded:
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in folded.items())
    return bool(folded)


def _has_data(tensor: Any) -> bool:
    """Small, and its values are in memory: large weights were dropped."""
    return bool(prod(tensor.dims) <= LARGEST and not onnx.external_data_helper.uses_external_data(tensor))


def _evaluated(
    node: Any, values: Mapping[str, np.ndarray[Any, Any]], shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """The node's outputs by name, or None where they depend on data, are large, or cannot be computed here."""
    inputs = [name for name in node.input if name]
    if node.op_type == "Shape" and inputs[0] in shapes:
        feeds: dict[str, Any] = {inputs[0]: np.broadcast_to(np.float32(0), tuple(shapes[inputs[0]]))}
    elif all(name in values for name in inputs) and all(prod(shapes.get(o, (1,))) <= LARGEST for o in node.output):
        feeds = {name: values[name] for name in inputs}
    else:
        return None
    from onnx.reference import ReferenceEvaluator  # takes longer to import than most files take to count

    try:
        results = ReferenceEvaluator(node).run(None, feeds)
    except Exception:  # the reference raises what it likes; the node then stays, and its shape stays open
        return None
    outputs = [o for o in node.output if o]
    if len(outputs) != len(results) or any(np.size(r) > LARGEST for r in results):
        return None
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}
