"""Simulated execution held against published boards: count networks, fit a board's constants, and say how far to trust them.

    python bench/simulation.py count ncnn --shared ../shared          # what it has counted it keeps
    python bench/simulation.py count onnxruntime --shared ../shared
    python bench/simulation.py score --shared ../shared
    python bench/simulation.py write --shared ../shared               # the [[simulations]] of hardware_profiles/
    python bench/simulation.py channels                               # which multiples of channels pay

Counts lie in bench/simulated/. The published rows (times, clocks) are those of ../shared/cases/boards.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simulation_boards as boards
import simulation_channels as channels
import simulation_count as counting
import simulation_fit as fitting
from simulation_boards import Board
from simulation_fit import Row

from orchestrator.values.profile import NumberFormat
from orchestrator_qemu.counts import Counts
from orchestrator_qemu.cpus import CPUS

HERE = Path(__file__).parent
PROFILES = HERE.parent / "hardware_profiles"
FORMATS: dict[str, NumberFormat] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def read_rows(shared: Path) -> tuple[boards.Rows, boards.Times]:
    """The published rows of every board that is fitted: one thread with counts, and all numbers of threads."""
    published = json.loads((shared / "cases/boards/published.json").read_text())
    counted = counting.read("ncnn")
    known = {s.board: s for b in boards.BOARDS for s in b.sources} | {s.board: s for g in boards.SAME_CORE for s in g}
    rows: boards.Rows = {name: [] for name in known}
    times: dict[str, dict[tuple[str, str], dict[int, float]]] = {name: {} for name in known}
    for row in published:
        source = known.get(row["board"])
        if source is None:
            continue
        times[source.board].setdefault((row["network"], row["precision"]), {})[row["threads"]] = row["min_ms"]
        kept = counted[source.cpu]["networks"].get(row["network"], {})
        variant = "int8" if row["precision"] == "int8" else "float"
        if row["threads"] == 1 and variant in kept:
            rows[source.board].append(
                Row(
                    network=row["network"],
                    number_format=FORMATS[row["precision"]],
                    milliseconds=row["min_ms"],
                    counts=Counts.from_plain(kept[variant]),
                )
            )
    several = {board: [t for t in found.values() if 1 in t and len(t) > 1] for board, found in times.items()}
    return rows, several


def score(shared: Path) -> None:
    """Print the figures of every board with rows of its own, as tables."""
    rows, times = read_rows(shared)
    own = [board for board in boards.BOARDS if not board.carried]
    _print_errors(own, rows)
    _print_ratios(own, rows)
    print("\nCarried to a board that was left out (root mean square of the logarithms):")
    for group in boards.SAME_CORE:
        several = [(s, rows[s.board]) for s in group]
        for one in (True, False):
            spread = ", ".join(f"{e:.2f}" for e in boards.carried_logarithms(several, one=one))
            print(f"  {group[0].cpu}, from {'one other' if one else 'all others'}: {spread}")
    print("\nThreads:")
    for board in boards.BOARDS:
        speedups, off = fitting.thread_speedup(boards.measured_threads(board, times))
        print(f"  {board.profile}: {', '.join(f'{s:.2f}' for s in speedups)}; error {off:.2f}")


def _print_errors(own: Sequence[Board], rows: boards.Rows) -> None:
    """Leave-one-network-out figures."""
    print("| board | rows | mean error | within 10 % | within 20 % | Kendall's tau | in the band | half-width | a, b, c |")
    print("|---|---|---|---|---|---|---|---|---|")
    for board in own:
        (source,) = board.sources
        found = rows[source.board]
        cycles = ", ".join(f"{c:.3g}" for c in fitting.fit(found, source.clock_hz).values())
        for int8 in (False, True):
            s = fitting.score(found, source.clock_hz, int8=int8)
            said = "int8" if int8 else next(r.number_format for r in found if r.number_format != "int8")
            print(
                f"| {source.board}, {said} | {s.rows} | {s.mean_error:.1f} | {s.within_10:.0f} | {s.within_20:.0f} | {s.tau:.2f} "
                f"| {s.covered:.0f} | {s.half_width:.2f} | {'' if int8 else cycles} |"
            )


def _print_ratios(own: Sequence[Board], rows: boards.Rows) -> None:
    """Errors of ratios by the share of work that two networks do not have in common."""
    edges = (0, 0.3, 0.5, 0.7, 0.85, 1.01)
    heads = [f"{low:.2f} to {min(high, 1):.2f}" for low, high in itertools.pairwise(edges)]
    print(f"\n| board | ratio_error | {' | '.join(heads)} |\n|---|---|{'---|' * len(heads)}")
    for board in own:
        (source,) = board.sources
        found = fitting.pairs(
            rows[source.board], source.clock_hz, lambda c, b=board, s=source: boards.simulation_model(b, "ncnn", s.cpu, c)
        )
        error = fitting.ratio_error(found)
        parts = []
        for low, high in itertools.pairwise(edges):
            inside = [p for p in found if low <= p.unlike < high]
            held = np.mean([abs(p.logarithm) <= np.log(error) * p.unlike for p in inside]) * 100
            off = np.exp(np.quantile([abs(p.logarithm) for p in inside], fitting.SHARE))
            parts.append(f"{off:.2f}, {held:.0f} % of {len(inside)}")
        print(f"| {source.board} | {error:.2f} | {' | '.join(parts)} |")


def write(shared: Path) -> None:
    """Write the blocks of all profiles that are there."""
    rows, times = read_rows(shared)
    carry = boards.carry_from_one(rows)
    versions = {cpu: found["versions"]["ncnn"] for cpu, found in counting.read("ncnn").items()}
    for board in boards.BOARDS:
        boards.write(PROFILES, board, boards.render(board, boards.fit(board, rows, times, carry), versions))
        print(board.profile)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("count", "score", "write", "channels"))
    parser.add_argument("runtime", nargs="?", choices=("ncnn", "onnxruntime"), default="ncnn", help="count: in which runtime")
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--cpu", action="append", choices=tuple(CPUS), help="count, channels: only on this one; may be repeated")
    parser.add_argument("--network", action="append", help="count: only this one; may be repeated")
    chosen = parser.parse_args()
    cases = chosen.shared / "cases/boards"
    if not (cases / "published.json").exists():
        sys.exit(f"{cases}/published.json is not there: give --shared")
    if chosen.what == "channels":
        channels.count(chosen.cpu or ())
    elif chosen.what == "count":
        counting.count(chosen.runtime, cases / "models", cpus=tuple(chosen.cpu or ()), only=tuple(chosen.network or ()))
    else:
        {"score": score, "write": write}[chosen.what](chosen.shared)


if __name__ == "__main__":
    main()
