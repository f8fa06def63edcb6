"""Fit a board's latency-model constants for onnxruntime, and say how far they carry to a network left out.

    python bench/fit_profiles.py raspberry-pi-4 --shared ../shared

No onnxruntime times are published for these boards. So float32, one thread, is fitted to *simulated* times of onnxruntime
1.31.1: counts of what its aarch64 build executes on such a core under qemu, turned into cycles by constants that were fitted
to published ncnn times (prototypes/simulated-arm: NOTES.md, counts.json). The gain of int8 is that of the counted
instructions of MobileNetV2, and the speed-up of threads that of ncnn's published rows (Tencent/ncnn, benchmark/README.md).
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq, least_squares

from orchestrator.hardware.estimate import estimate_count
from orchestrator.hardware.graph import GraphCount, count
from orchestrator.values.profile import CostModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A board and the core that was simulated for it.

    Attributes:
        published: Its name in published.json.
        core: Of the counts ("a72").
        clock_hz: Of the core that one thread runs on.
        cycles: Cycles for one simulated cycle, one L1 miss and one L2 miss (NOTES.md).
        int8_ratio: Instructions of MobileNetV2, int8 (best scheme) over float32.
        least_operator_s: The lower bound of the fixed cost of an operator. The networks are too large to show it well: on the
            Cortex-A72 the fit would put it at nothing, on the Cortex-A76 at 4.0 us; the older core's bound is that times 2.5.
    """

    published: str
    core: str
    clock_hz: float
    cycles: tuple[float, float, float]
    int8_ratio: float
    least_operator_s: float


BOARDS = {
    "raspberry-pi-4": Board(
        published="Raspberry Pi 4B",
        core="a72",
        clock_hz=1.8e9,
        cycles=(0.77, 15.8, 5.3),
        int8_ratio=120 / 181,
        least_operator_s=1e-5,
    ),
    "snapdragon-855-plus": Board(
        published="Snapdragon 855+ phone",
        core="a76",
        clock_hz=2.96e9,
        cycles=(0.82, 4.4, 2.2),
        int8_ratio=61 / 181,
        least_operator_s=1e-7,
    ),
}
# What the fit cannot show, as factors: the simulation against published times of ncnn (mean error 7 %, nearly all within 20 %),
# and that its constants were fitted to ncnn and are used for onnxruntime, for which nothing is published to hold them against.
SIMULATION, OTHER_RUNTIME = 1.2, 1.5
# Where the solver starts, and its bounds: float32 MAC/s, depthwise share, bytes/s, seconds an operator.
START = (5e9, 0.5, 4e9, 2e-5)
LOW = (1e8, 0.02, 1e8)
HIGH = (1e12, 2.0, 1e12, 1e-3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One simulated time."""

    network: str
    graph: GraphCount
    milliseconds: float


def read_rows(shared: Path, board: Board) -> list[Row]:
    """All networks that onnxruntime was counted with on that core."""
    counts = json.loads((shared / "prototypes/simulated-arm/counts.json").read_text())
    rows = []
    for key, found in counts.items():
        runtime, _, core, network = key.split("/")
        if runtime == "ort" and core == board.core:
            cycles = sum(c * found[name] for c, name in zip(board.cycles, ("sim", "l1", "l2"), strict=True))
            graph = count(shared / "cases/boards/models" / f"{network}.onnx")
            rows.append(Row(network=network, graph=graph, milliseconds=cycles / board.clock_hz * 1e3))
    return rows


def in_int8(graph: GraphCount) -> GraphCount:
    """A float32 graph as if all of it were computed in int8."""
    return dataclasses.replace(
        graph,
        operators=tuple(
            dataclasses.replace(o, number_format="int8", bytes_read=o.bytes_read // 4, bytes_written=o.bytes_written // 4)
            for o in graph.operators
        ),
    )


def cost_model(logarithms: Sequence[float], int8_rate: float = 1e9, speedup: tuple[float, ...] = ()) -> CostModel:
    """The constants as the estimator takes them."""
    rate, depthwise, bandwidth, fixed = (math.exp(x) for x in logarithms)
    return CostModel(
        runtime="onnxruntime",
        macs_per_second={"float32": rate, "int8": int8_rate},
        depthwise_share=depthwise,
        bytes_per_second=bandwidth,
        seconds_per_operator=fixed,
        thread_speedup=speedup,
        error=1.0,
        fitted_on="simulated onnxruntime",
        source="fit",
    )


def residuals(logarithms: Sequence[float], rows: Sequence[Row]) -> list[float]:
    """The logarithm of predicted over simulated, row by row."""
    cost = cost_model(logarithms)
    return [math.log(estimate_count(r.graph, cost, 1).value / r.milliseconds) for r in rows]


def fit(rows: Sequence[Row], start: Sequence[float], board: Board) -> list[float]:
    """Least squares on the logarithm of the ratio, the relative error that weighs half and double alike."""
    bounds = (np.log((*LOW, board.least_operator_s)), np.log(HIGH))
    start = np.maximum(start, bounds[0] + 1e-6)
    return list(least_squares(residuals, start, bounds=bounds, args=(rows,), x_scale=1.0).x)


def int8_rate(logarithms: Sequence[float], graph: GraphCount, ratio: float) -> float:
    """The int8 MAC/s at which the estimate of that network falls to `ratio` of its float32 one."""
    floating, integer = estimate_count(graph, cost_model(logarithms), 1).value, in_int8(graph)

    def excess(logarithm: float) -> float:
        return estimate_count(integer, cost_model(logarithms, math.exp(logarithm)), 1).value / floating - ratio

    return math.exp(brentq(excess, math.log(1e8), math.log(1e13)))


def thread_speedup(shared: Path, board: Board) -> tuple[tuple[float, ...], float]:
    """Speed-ups of 2, 3 and 4 threads (Amdahl's law through the median of 4), and the factor that holds 95 % of the networks."""
    rows = json.loads((shared / "cases/boards/published.json").read_text())
    times = {
        (r["network"], r["threads"]): r["min_ms"]
        for r in rows
        if r["board"] == board.published and r["precision"] != "int8" and r["threads"] in (1, 4)
    }
    ratios = [times[n, 1] / times[n, 4] for n, threads in times if threads == 4 and (n, 1) in times]
    median = float(np.median(ratios))
    serial = (4 / median - 1) / 3
    band = float(np.exp(np.quantile(np.abs(np.log(np.array(ratios) / median)), 0.95)))
    return tuple(1 / (serial + (1 - serial) / n) for n in (2, 3, 4)), band


def main() -> None:
    """Fit, leave each network out once, print the constants as they stand in a profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=BOARDS)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    arguments = parser.parse_args()
    board = BOARDS[arguments.profile]
    rows = read_rows(arguments.shared, board)
    best = fit(rows, [math.log(x) for x in START], board)

    left_out = []
    for row in rows:
        fitted = fit([r for r in rows if r is not row], best, board)
        left_out += residuals(fitted, [row])
    error = np.abs(np.expm1(left_out))
    band = float(np.exp(np.quantile(np.abs(left_out), 0.95)))
    speedup, threads = thread_speedup(arguments.shared, board)
    mobilenet = next(r.graph for r in rows if r.network == "mobilenet_v2")
    rate = int8_rate(best, mobilenet, board.int8_ratio)
    total = math.exp(math.sqrt(sum(math.log(f) ** 2 for f in (band, threads, SIMULATION, OTHER_RUNTIME))))

    print(f"# {arguments.profile}: {len(rows)} networks, each left out once:")
    print(f"# mean error {error.mean():.1%}, largest {error.max():.1%}, 95 % within a factor {band:.2f}; threads {threads:.2f}")
    cost = cost_model(best, rate, speedup)
    print("macs_per_second = {" + ", ".join(f"{k} = {v:.3g}" for k, v in cost.macs_per_second.items()) + "}")
    print(f"depthwise_share = {cost.depthwise_share:.3g}")
    print(f"bytes_per_second = {cost.bytes_per_second:.3g}")
    print(f"seconds_per_operator = {cost.seconds_per_operator:.3g}")
    print(f"thread_speedup = [{', '.join(f'{s:.3g}' for s in cost.thread_speedup)}]")
    print(f"error = {total:.2f}  # of the factors {band:.2f}, {threads:.2f}, {SIMULATION} and {OTHER_RUNTIME}")


if __name__ == "__main__":
    main()
