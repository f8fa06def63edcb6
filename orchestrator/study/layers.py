"""Comparison of the layers of the original and a candidate, from the two exported graphs."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.hardware.estimate import estimate_count
from orchestrator.hardware.graph import GraphCount, Operator, count
from orchestrator.hardware.operators import WEIGHT_INPUT
from orchestrator.hardware.shapes import read_shaped_graph
from orchestrator.values.layers import Layer, LayerChange, LayerTable
from orchestrator.values.measure import LatencyEstimate
from orchestrator.values.target import Target

Shapes = Mapping[str, Sequence[int]]

# Affixes that exporters and quantizers add to the name of a weight in the network.
_ENDINGS = re.compile(r"(_DequantizeLinear_Output|_quantized|_QuantizeLinear|_output|_transposed|_fp16|_Q4|_Q8|_B\d+)+$")
_WEIGHT = re.compile(r"\.(weight|weight_ih|weight_hh|in_proj_weight|weight_orig)$")
_GENERATED = re.compile(r"^(val_\d+|_?onnx::.*|t_\d+|\d+)$")
_PATH = re.compile(r"[/.]")
"""Separator in the name of an operator that is its path in the network ("/stem/Conv")."""


class Layers:
    """The layers of one exported graph, by name and in topological order.

    Args:
        path: An ONNX file.
        shapes: Full shapes of the inputs that have dynamic axes besides the batch axis, by input name.
        runtime: Runtime of the file; None for the target's. Another one has no times: the estimate does not cover it.

    Attributes:
        named: Layers with the name of the network's module that holds their weights.

    Raises:
        InputError: The graph cannot be counted.
    """

    def __init__(self, path: Path, target: Target, shapes: Shapes, runtime: str | None = None) -> None:
        counted = count(path, shapes)
        self.estimate = _estimate(counted, target) if runtime in (None, target.runtime) else None
        costs = {} if self.estimate is None else {entry.name: entry.ms for entry in self.estimate.by_operator}
        names = _weight_names(path, shapes)
        self.by_name: dict[str, Layer] = {}
        self.named: set[str] = set()
        for operator in counted.operators:
            if operator.macs == 0 or operator.free or operator.fused_into is not None:
                continue
            name = names.get(operator.name) or operator.name
            while name in self.by_name:  # the network uses a layer twice
                name += "'"
            self.by_name[name] = _layer(operator, costs.pop(operator.name, None) if self.estimate else None)
            if operator.name in names:
                self.named.add(name)
        self.others_ms = None if self.estimate is None else sum(costs.values())


def layer_table(original: Layers, candidate: Layers, target: Target) -> LayerTable:
    """Return the layers of both graphs side by side.

    Layers are the same if their weights, or else their operators, have the same name in the network. Layers with generated names
    are paired in order if both graphs have the same number of a kind. Times are given if both graphs have them.
    """
    pairs = {name: name for name in original.by_name if name in candidate.by_name and _is_path(original, candidate, name)}
    pairs |= dict(_in_order(original, candidate, pairs))
    timed = original.estimate is not None and candidate.estimate is not None

    def side(layer: Layer) -> Layer:
        return layer if timed else replace(layer, ms=None)

    rows = [
        LayerChange(name=name, before=side(layer), after=side(candidate.by_name[pairs[name]]) if name in pairs else None)
        for name, layer in original.by_name.items()
    ]
    paired = set(pairs.values())
    rows += [LayerChange(name=name, after=side(layer)) for name, layer in candidate.by_name.items() if name not in paired]
    return LayerTable(
        device=target.profile.name,
        runtime=target.runtime,
        threads=target.threads,
        fitted_on=candidate.estimate.fitted_on if timed and candidate.estimate is not None else "",
        others_before_ms=original.others_ms if timed else None,
        others_after_ms=candidate.others_ms if timed else None,
        layers=tuple(rows),
    )


def _is_path(original: Layers, candidate: Layers, name: str) -> bool:
    """Return True if a name that both graphs have is not a generated number."""
    return (name in original.named and name in candidate.named) or _PATH.search(name) is not None


def _in_order(original: Layers, candidate: Layers, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of layers with generated names."""

    def nameless(layers: Layers) -> dict[tuple[str, tuple[int, ...]], list[str]]:
        names = defaultdict(list)
        for name, layer in layers.by_name.items():
            if name not in known and name not in layers.named:
                names[_kind(layer.operator), layer.kernel].append(name)
        return names

    before, after = nameless(original), nameless(candidate)
    for kind, names in before.items():
        if len(names) == len(after.get(kind, ())):
            yield from zip(names, after[kind], strict=True)


def _kind(operator: str) -> str:
    """Return one name for operators that do the same work in different number formats."""
    if "Conv" in operator:
        return "Conv"
    return "MatMul" if "Gemm" in operator or "MatMul" in operator else operator


def _weight_names(path: Path, shapes: Shapes) -> dict[str, str]:
    """Return the name of the network's module that holds each operator's weights, by the operator's name."""
    graph = read_shaped_graph(path, shapes)
    modules = {}
    for index, node in enumerate(graph.nodes):
        position = WEIGHT_INPUT.get(node.op_type)
        if position is None or position >= len(node.input):
            continue
        weight = _ENDINGS.sub("", node.input[position])
        if weight and not _GENERATED.match(weight) and _WEIGHT.search(weight):
            modules[node.name or f"{node.op_type}_{index}"] = _WEIGHT.sub("", weight).removeprefix("model.")
    return modules


def _layer(operator: Operator, ms: float | None) -> Layer:
    product = operator.product
    return Layer(
        operator=operator.op_type,
        number_format=operator.number_format,
        in_channels=product.in_channels if product else None,
        out_channels=product.out_channels if product else None,
        kernel=product.kernel if product else (),
        groups=product.groups if product else 1,
        macs=operator.macs,
        weights=operator.weights,
        ms=ms,
    )


def _estimate(counted: GraphCount, target: Target) -> LatencyEstimate | None:
    try:
        return estimate_count(counted, target.profile, target.runtime, target.threads)
    except InputError:  # no latency model, or none for this number format
        return None
