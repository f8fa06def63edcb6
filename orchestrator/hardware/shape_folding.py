"""Folding of the shape arithmetic in a graph: exporters write sizes of dynamic axes as small graphs of integer arithmetic.

onnx propagates the values of some such operators and stops at others (Reshape of a scalar, which torch writes for every size).
With the shapes of all inputs fixed these small graphs are constants, so the rest is evaluated by onnx's reference
implementation.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper

LARGEST = 1024
"""Largest number of elements that is folded; shapes are smaller, and weights are not folded."""


def fold_shapes(graph: Any, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Replace every node that follows from shapes and small constants alone by an initializer, in place.

    Args:
        graph: An onnx.GraphProto that is not shared.
        shapes: The shapes known so far, by tensor name.

    Returns:
        True if anything was folded, so that another round of inference can determine more.
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
    """Return True if a tensor is small and its values are in memory."""
    return bool(prod(tensor.dims) <= LARGEST and not onnx.external_data_helper.uses_external_data(tensor))


def _evaluated(
    node: Any, values: Mapping[str, np.ndarray[Any, Any]], shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return the node's outputs by name, or None if they depend on data, are large, or cannot be computed here."""
    inputs = [name for name in node.input if name]
    if node.op_type == "Shape" and inputs[0] in shapes:
        feeds: dict[str, Any] = {inputs[0]: np.broadcast_to(np.float32(0), tuple(shapes[inputs[0]]))}
    elif all(name in values for name in inputs) and all(prod(shapes.get(o, (1,))) <= LARGEST for o in node.output):
        feeds = {name: values[name] for name in inputs}
    else:
        return None
    from onnx.reference import ReferenceEvaluator  # slow to import

    try:
        results = ReferenceEvaluator(node).run(None, feeds)
    except Exception:  # the reference may raise anything; the node then remains, and its shape is dynamic
        return None
    outputs = [o for o in node.output if o]
    if len(outputs) != len(results) or any(np.size(r) > LARGEST for r in results):
        return None
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}
