"""What an optimization did to the layers of a network, one by one: `layers.json` beside a candidate's file."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One convolution, matrix product or recurrent layer of an exported graph, with what is fused into it.

    Attributes:
        operator: As ONNX names it ("Conv").
        number_format: What its arithmetic is done in.
        in_channels, out_channels: Of a matrix product its depth and its columns; None where the operator has none.
        kernel: Along each spatial axis.
        macs: Multiply-accumulates of one inference.
        weights: Elements of its constants.
        ms: Its share of the estimated latency; None where the target has no latency model.
    """

    operator: str
    number_format: str
    in_channels: int | None = None
    out_channels: int | None = None
    kernel: tuple[int, ...] = ()
    groups: int = 1
    macs: int = 0
    weights: int = 0
    ms: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChange:
    """A layer of the original and what became of it; `before` is None for one that is new, `after` for one that is gone."""

    name: str
    before: Layer | None = None
    after: Layer | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTable:
    """All layers of a candidate and of the original, in the order of the original's graph.

    Attributes:
        device, runtime, threads: What the times are estimated for.
        fitted_on: What the constants of that estimate come from; "" where there are no times.
        others_before_ms, others_after_ms: Of all operators that have no row (additions, pools, quantizers).
    """

    schema: Literal[1] = 1
    evidence: Literal["estimated"] = "estimated"
    device: str
    runtime: str
    threads: int
    fitted_on: str = ""
    others_before_ms: float | None = None
    others_after_ms: float | None = None
    layers: tuple[LayerChange, ...]
