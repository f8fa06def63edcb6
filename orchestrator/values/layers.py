"""Changes of a network's layers: `layers.json` beside a candidate's file."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One convolution, matrix product or recurrent layer of an exported graph, with its fused operators.

    Attributes:
        operator: ONNX operator type ("Conv").
        number_format: Number format of its arithmetic.
        in_channels: Input channels, or the depth of a matrix product; None if the operator has none.
        out_channels: Output channels, or the columns of a matrix product; None if the operator has none.
        kernel: Size along each spatial axis.
        macs: Multiply-accumulates of one inference.
        weights: Elements of its constants.
        ms: Its share of the estimated latency, or None if the target has no latency model.
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
    """A layer of the original and of the candidate; `before` is None for an added one, `after` for a removed one."""

    name: str
    before: Layer | None = None
    after: Layer | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTable:
    """All layers of a candidate and of the original, in the order of the original's graph.

    Attributes:
        device: Machine of the estimated times.
        runtime: Runtime of the estimated times.
        threads: Threads of the estimated times.
        fitted_on: Data of the estimate's fit; "" without times.
        others_before_ms: Time of the original's operators without a row (additions, pools, quantizers).
        others_after_ms: Time of the candidate's operators without a row.
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
