"""Fit a board's latency-model constants to published latencies, and say how far they carry to a network left out.

    python bench/fit_profiles.py raspberry-pi-4 --cases ../shared/cases/boards

The published times are ncnn's (Tencent/ncnn, benchmark/README.md). The constants are printed twice: as fitted, and carried
over to onnxruntime by the factors in BOARDS, which is how they stand in hardware_profiles/.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from orchestrator.hardware.estimate import estimate_count
from orchestrator.hardware.graph import GraphCount, count
from orchestrator.values.profile import CostModel, NumberFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """How a profile's board is called in published.json, and how its rows compare with what onnxruntime will do.

    Attributes:
        float_format: What the rows that are not int8 were computed in.
        float_factor: onnxruntime's float32 time over ncnn's time in float_format, for arithmetic and for traffic.
    """

    board: str
    float_format: NumberFormat
    float_factor: float

    @property
    def float_bytes(self) -> int:
        """Bytes of one number in float_format."""
        return {"float32": 4, "float16": 2}[self.float_format]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One published time."""

    network: str
    threads: int
    int8: bool
    graph: GraphCount
    milliseconds: float


# onnxruntime's time over ncnn's on a Cortex-A72, from counts of executed instructions (our own, qemu): median and range.
RUNTIME_FACTOR, RUNTIME_LOW, RUNTIME_HIGH = 1.24, 1.03, 2.35
BOARDS = {
    "raspberry-pi-4": Board(board="Raspberry Pi 4B", float_format="float32", float_factor=RUNTIME_FACTOR),
    # ncnn's rows are float16 here: half the lanes and twice the bytes make 2. Between the two runtimes, on a Raspberry Pi 5 with
    # the same kind of core, Ultralytics publish 1.66 and 1.91 (runtimes_pi5.json).
    "snapdragon-855-plus": Board(board="Snapdragon 855+ phone", float_format="float16", float_factor=2.0),
}
# Where the solver starts: arithmetic at 5 GMAC/s, int8 at twice that, and orders of magnitude for the rest. Unit: SI.
NAMES = ("float", "int8", "depthwise", "bytes_per_second", "seconds_per_operator", "speedup")
START = (5e9, 1e10, 0.5, 4e9, 2e-5, 3.0)
LOW = (1e8, 1e8, 0.02, 1e8, 1e-7, 1.0)
HIGH = (1e12, 1e12, 2.0, 1e12, 1e-3, 4.0)


def converted(graph: GraphCount, number_format: NumberFormat, divide: int) -> GraphCount:
    """A float32 graph as a runtime would run it in another format: the files of the cases are all float32."""
    return dataclasses.replace(
        graph,
        operators=tuple(
            dataclasses.replace(
                o, number_format=number_format, bytes_read=o.bytes_read // divide, bytes_written=o.bytes_written // divide
            )
            for o in graph.operators
            if not o.free and o.fused_into is None
        ),
    )


def read_rows(cases: Path, board: Board) -> list[Row]:
    """The board's published rows with 1 and 4 threads."""
    rows = [r for r in json.loads((cases / "published.json").read_text()) if r["board"] == board.board]
    graphs = {name: count(cases / "models" / f"{name}.onnx") for name in {r["network"] for r in rows}}
    divide = 4 // board.float_bytes
    return [
        Row(
            network=r["network"],
            threads=r["threads"],
            int8=r["precision"] == "int8",
            graph=converted(graphs[r["network"]], "int8", 4)
            if r["precision"] == "int8"
            else converted(graphs[r["network"]], board.float_format, divide),
            milliseconds=r["min_ms"],
        )
        for r in rows
        if r["threads"] in (1, 4)
    ]


def cost_model(logarithms: Sequence[float], float_format: NumberFormat) -> CostModel:
    """The constants as the estimator takes them. Speed-ups between 1 and 4 threads follow Amdahl's law."""
    rate, int8, depthwise, bandwidth, fixed, speedup = (math.exp(x) for x in logarithms)
    serial = (4 / speedup - 1) / 3
    return CostModel(
        runtime="ncnn",
        macs_per_second={float_format: rate, "int8": int8},
        depthwise_share=depthwise,
        bytes_per_second=bandwidth,
        seconds_per_operator=fixed,
        thread_speedup=tuple(1 / (serial + (1 - serial) / n) for n in (2, 3, 4)),
        error=1.0,
        fitted_on="ncnn",
        source="fit",
    )


def residuals(logarithms: Sequence[float], rows: Sequence[Row], float_format: NumberFormat) -> list[float]:
    """The logarithm of predicted over published, row by row."""
    cost = cost_model(logarithms, float_format)
    return [math.log(estimate_count(r.graph, cost, r.threads).value / r.milliseconds) for r in rows]


def fit(rows: Sequence[Row], float_format: NumberFormat, start: Sequence[float]) -> list[float]:
    """Least squares on the logarithm of the ratio, the relative error that weighs half and double alike."""
    bounds = (np.log(LOW), np.log(HIGH))
    return list(least_squares(residuals, start, bounds=bounds, args=(rows, float_format), x_scale=1.0).x)


def main() -> None:
    """Fit, leave each network out once, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=BOARDS)
    parser.add_argument("--cases", type=Path, default=Path("../shared/cases/boards"))
    arguments = parser.parse_args()
    board = BOARDS[arguments.profile]
    rows = read_rows(arguments.cases, board)
    best = fit(rows, board.float_format, [math.log(x) for x in START])

    left_out: list[tuple[Row, float]] = []
    for network in sorted({r.network for r in rows}):
        test = [r for r in rows if r.network == network]
        fitted = fit([r for r in rows if r.network != network], board.float_format, best)
        left_out += zip(test, residuals(fitted, test, board.float_format), strict=True)

    print(f"{board.board}: {len(rows)} rows of {len({r.network for r in rows})} networks")
    for int8, threads in ((False, 1), (False, 4), (True, 1), (True, 4)):
        group = [x for r, x in left_out if (r.int8, r.threads) == (int8, threads)]
        report(group, f"{'int8' if int8 else board.float_format}, {threads} threads")
    band = report([x for _, x in left_out], "all rows")
    for row, x in sorted(left_out, key=lambda pair: -abs(pair[1]))[:5]:
        print(f"  worst: {row.network}, int8={row.int8}, {row.threads} threads: predicted/published {math.exp(x):.2f}")

    spread = max(RUNTIME_HIGH / RUNTIME_FACTOR, RUNTIME_FACTOR / RUNTIME_LOW)
    show("ncnn, as fitted", cost_model(best, board.float_format), band)
    show("onnxruntime, carried over", carried_over(best, board), math.exp(math.hypot(math.log(band), math.log(spread))))


def carried_over(logarithms: Sequence[float], board: Board) -> CostModel:
    """The constants for onnxruntime: every time that the model adds up, times its factor."""
    cost = cost_model(logarithms, board.float_format)
    return dataclasses.replace(
        cost,
        runtime="onnxruntime",
        macs_per_second={
            "float32": cost.macs_per_second[board.float_format] / board.float_factor,
            "int8": cost.macs_per_second["int8"] / RUNTIME_FACTOR,
        },
        bytes_per_second=cost.bytes_per_second * (4 / board.float_bytes) / board.float_factor,
        seconds_per_operator=cost.seconds_per_operator * RUNTIME_FACTOR,
    )


def show(title: str, cost: CostModel, error: float) -> None:
    """Print the constants as they stand in a profile."""
    print(f"# {title}")
    print("macs_per_second = {" + ", ".join(f"{k} = {v:.3g}" for k, v in cost.macs_per_second.items()) + "}")
    print(f"depthwise_share = {cost.depthwise_share:.3g}")
    print(f"bytes_per_second = {cost.bytes_per_second:.3g}")
    print(f"seconds_per_operator = {cost.seconds_per_operator:.3g}")
    print(f"thread_speedup = [{', '.join(f'{s:.3g}' for s in cost.thread_speedup)}]")
    print(f"error = {error:.2f}")


def report(logarithms: Sequence[float], what: str) -> float:
    """Print the left-out errors of one group; return the factor that holds 95 % of them."""
    error = np.abs(np.expm1(logarithms))
    band = float(np.exp(np.quantile(np.abs(logarithms), 0.95)))
    print(f"{what:20s} n={len(error):3d} mean {error.mean():6.1%} max {error.max():6.1%} 95 % within a factor {band:.3f}")
    return band


if __name__ == "__main__":
    main()
