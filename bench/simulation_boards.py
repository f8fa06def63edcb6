"""Which board is fitted to which published rows, and the `[[simulations]]` blocks of its profile."""

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simulation_fit as fitting
from scipy.optimize import nnls
from scipy.stats import t as student
from simulation_fit import Cycles, Row

from orchestrator.values.profile import NumberFormat, SimulationModel

PUBLISHED = "Tencent/ncnn benchmark/README.md @a4d2ea1d4422"
BEGIN, END = "# --- simulations: written by bench/simulation.py ---", "# --- end of simulations ---"
# Constants of ncnn used for onnxruntime: our judgement, for hardly any of its latencies is published.
OTHER_RUNTIME = 1.5


@dataclass(frozen=True, kw_only=True)
class Source:
    """A board with published rows of its own.

    Attributes:
        board: Its name in published.json.
        cpu: The simulated CPU whose counts are used.
        clock_hz: Of the core that the one thread ran on, as published.
    """

    board: str
    cpu: str
    clock_hz: float


PI_4 = Source(board="Raspberry Pi 4B", cpu="cortex-a72", clock_hz=1.8e9)
RK3399_A72 = Source(board="RK3399 (NanoPC-T4) [Cortex-A72]", cpu="cortex-a72", clock_hz=1.8e9)
ZERO_2 = Source(board="Raspberry Pi Zero 2 W", cpu="cortex-a53", clock_hz=1.0e9)
SNAPDRAGON_410 = Source(board="Snapdragon 410", cpu="cortex-a53", clock_hz=1.2e9)
RK3399_A53 = Source(board="RK3399 (NanoPC-T4) [Cortex-A53]", cpu="cortex-a53", clock_hz=1.5e9)
UNO_Q = Source(board="Arduino UNO Q", cpu="cortex-a53", clock_hz=2.0e9)
PI_5 = Source(board="Raspberry Pi 5", cpu="cortex-a76", clock_hz=2.4e9)
ROCK_5B = Source(board="Radxa ROCK 5B", cpu="cortex-a76", clock_hz=2.4e9)
SNAPDRAGON_855 = Source(board="Snapdragon 855+ phone", cpu="cortex-a76", clock_hz=2.96e9)
SNAPDRAGON_8_GEN_2 = Source(board="Snapdragon 8 Gen 2 phone", cpu="cortex-a76", clock_hz=3.2e9)
AGX_ORIN = Source(board="NVIDIA Jetson AGX Orin", cpu="cortex-a76", clock_hz=2.2e9)

SAME_CORE = ((ZERO_2, SNAPDRAGON_410, RK3399_A53, UNO_Q), (PI_4, RK3399_A72), (PI_5, ROCK_5B))
"""Boards that have a core in common: how far constants carry from one to another."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A profile and where its constants come from.

    Attributes:
        profile: Its file's stem.
        cluster: The cluster that one thread runs on.
        sources: The boards whose rows are fitted; more than one: all alike, and none of them is this board.
        carried: Why they are rows of another board or core; None: they are this board's.
        threads: Speed-ups of more threads are left out.
    """

    profile: str
    cluster: str
    sources: tuple[Source, ...]
    carried: str | None = None
    threads: int = 4


BOARDS = (
    Board(profile="raspberry-pi-4", cluster="Cortex-A72", sources=(PI_4,)),
    Board(profile="raspberry-pi-zero-2-w", cluster="Cortex-A53", sources=(ZERO_2,)),
    Board(profile="raspberry-pi-5", cluster="Cortex-A76", sources=(PI_5,)),
    Board(
        profile="raspberry-pi-3b-plus",
        cluster="Cortex-A53",
        sources=SAME_CORE[0],
        carried="no times of this board are fitted: four other boards with the same core, each weighing the same",
    ),
    Board(profile="rk3588", cluster="Cortex-A76", sources=(ROCK_5B,)),
    Board(profile="snapdragon-855-plus", cluster="Kryo 485 Gold Prime", sources=(SNAPDRAGON_855,)),
    Board(profile="snapdragon-8-gen-2", cluster="Cortex-X3", sources=(SNAPDRAGON_8_GEN_2,)),
    Board(
        profile="jetson-orin-nano",
        cluster="Cortex-A78AE",
        sources=(AGX_ORIN,),
        carried="times of the Jetson AGX Orin, which has the same core at another clock and more memory bandwidth",
        threads=8,  # of the twelve cores there; this board has six
    ),
)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The constants of a board, of ncnn."""

    cycles: Cycles
    error: dict[NumberFormat, float]
    ratio_error: float
    thread_speedup: tuple[float, ...]
    thread_error: float
    rows: int


Rows = dict[str, list[Row]]
Times = dict[str, list[dict[int, float]]]


def fit(board: Board, rows: Rows, times: Times, carry: Sequence[float]) -> Fitted:
    """Constants, and the errors of what was left out of their fit; `carry`: what a step from one board to another costs."""
    own = [(source, rows[source.board]) for source in board.sources]
    cycles = _pooled(own)
    source, first = own[0]

    def describe(found: Cycles) -> SimulationModel:
        return simulation_model(board, "ncnn", source.cpu, found)

    if not board.carried:
        error = fitting.bands(first, source.clock_hz)
    else:
        error = {f: _carried_error(own, carry) for f in dict.fromkeys(r.number_format for r in first)}
    pairs = [p for s, found in own for p in fitting.pairs(found, s.clock_hz, describe)]
    speedup, thread_error = fitting.thread_speedup(measured_threads(board, times))
    return Fitted(
        cycles=cycles,
        error=error,
        ratio_error=fitting.ratio_error(pairs),
        thread_speedup=speedup,
        thread_error=thread_error,
        rows=sum(len(found) for _, found in own),
    )


def measured_threads(board: Board, times: Times) -> list[dict[int, float]]:
    """Times by number of threads, of each network and format of a board's sources."""
    return [{n: ms for n, ms in t.items() if n <= board.threads} for s in board.sources for t in times[s.board]]


def _pooled(own: Sequence[tuple[Source, Sequence[Row]]]) -> Cycles:
    """One set of constants for several boards, each board weighing the same, each at its own clock."""
    scaled, wanted = [], []
    for source, rows in own:
        weight = 1 / math.sqrt(len(rows))
        for row in rows:
            share = np.array(fitting.features(row.counts)) / source.clock_hz * 1e3 / row.milliseconds
            scaled.append(weight * share)
            wanted.append(weight)
    found, _ = nnls(np.array(scaled), np.array(wanted))
    return dict(zip(fitting.FEATURES, map(float, found), strict=True))


def carried_logarithms(group: Sequence[tuple[Source, Sequence[Row]]], *, one: bool) -> list[float]:
    """Each board predicted by the others of its core: root mean square of the logarithms, a figure for each board (and other).

    Args:
        group: Boards with one core.
        one: From each single other board, or else from all others together.
    """
    found = []
    for target, rows in group:
        rest = [g for g in group if g[0] is not target]
        for base in [[g] for g in rest] if one else [rest]:
            cycles = _pooled(base)
            errors = [math.log(fitting.milliseconds(r.counts, cycles, target.clock_hz) / r.milliseconds) for r in rows]
            found.append(math.sqrt(sum(e * e for e in errors) / len(errors)))
    return found


def carry_from_one(rows: Rows) -> list[float]:
    """How far constants of one board carry to another one with its core, from all such boards."""
    groups = [[(s, rows[s.board]) for s in group] for group in SAME_CORE]
    return [e for group in groups for e in carried_logarithms(group, one=True)]


def _carried_error(own: Sequence[tuple[Source, Sequence[Row]]], carry: Sequence[float]) -> float:
    """Half-width for a board that has no rows: the spread between boards, of which there are few."""
    several = len(own) > 1
    spreads = carried_logarithms(own, one=False) if several else carry
    boards = len(own) if several else len(SAME_CORE[0])
    spread = math.sqrt(sum(s * s for s in spreads) / len(spreads))
    return math.exp(spread * float(student.ppf((1 + fitting.SHARE) / 2, boards)))


def simulation_model(board: Board, runtime: str, cpu: str, cycles: Cycles, fitted: Fitted | None = None) -> SimulationModel:
    """The constants as a profile has them; without `fitted`, with no errors yet."""
    return SimulationModel(
        runtime=runtime,
        cpu=cpu,
        cluster=board.cluster,
        cycles=cycles,
        error=fitted.error if fitted else {"float32": 1.0},
        ratio_error=fitted.ratio_error if fitted else 1.0,
        thread_speedup=fitted.thread_speedup if fitted else (),
        thread_error=fitted.thread_error if fitted else 1.0,
        fitted_on="published times of ncnn",
        source="simulation",
    )


def render(board: Board, fitted: Fitted, versions: dict[str, str]) -> str:
    """The blocks of a board's profile, ncnn's and onnxruntime's."""
    names = " and ".join(s.board for s in board.sources)
    cpu = board.sources[0].cpu
    fp = next(f for f in fitted.error if f != "int8")
    said = (
        f"{fitted.rows} published times of ncnn with one thread, floating point and int8 together ({names}), and counts of "
        f"ncnn {versions[cpu]} on a simulated {cpu.replace('cortex', 'Cortex').replace('-a', '-A')}"
    )
    if board.carried:
        said += f"; {board.carried}"
    carried = {"float32": _together(fitted.error[fp], OTHER_RUNTIME), "int8": _together(fitted.error["int8"], OTHER_RUNTIME)}
    other = (
        f"{said}. They are ncnn's: no times of onnxruntime are published to hold them against, so the band of the milliseconds "
        f"has a further factor of {OTHER_RUNTIME} (as independent); ratios of two models have the error that they have in ncnn"
    )
    return "\n".join(
        [
            BEGIN,
            *_block(board, "ncnn", cpu, fitted, fitted.error, said),
            "",
            *_block(board, "onnxruntime", cpu, fitted, carried, other),
            END,
        ]
    )


def _block(board: Board, runtime: str, cpu: str, fitted: Fitted, error: dict[str, float], said: str) -> list[str]:
    cycles = ", ".join(f"{name} = {value:.3g}" for name, value in fitted.cycles.items())
    errors = ", ".join(f"{name} = {_up(value)}" for name, value in error.items())
    return [
        "[[simulations]]",
        f'runtime = "{runtime}"',
        f'cpu = "{cpu}"',
        f'cluster = "{board.cluster}"',
        f"cycles = {{ {cycles} }}",
        f"error = {{ {errors} }}",
        f"ratio_error = {_up(fitted.ratio_error)}",
        f"thread_speedup = [{', '.join(f'{s:.3g}' for s in fitted.thread_speedup)}]",
        f"thread_error = {_up(fitted.thread_error)}",
        f'fitted_on = "{said}"',
        'source = "simulation"',
    ]


def _up(factor: float) -> str:
    """Two decimals, never narrower than it is."""
    return f"{math.ceil(factor * 100 - 1e-9) / 100:.2f}"


def _together(*errors: float) -> float:
    return math.exp(math.sqrt(sum(math.log(e) ** 2 for e in errors)))


def source_text(board: Board) -> str:
    """What the profile's [sources] say."""
    names = ", ".join(f"{s.board} at {s.clock_hz / 1e9:g} GHz" for s in board.sources)
    return (
        f"bench/simulation.py: counts of bench/simulated/ncnn.json, times and speed-ups of threads of {PUBLISHED} ({names}). "
        "Errors: of networks left out of the fit (docs/simulation.md)."
    )


def write(folder: Path, board: Board, text: str) -> None:
    """Put the blocks between their marker lines, and their source among the sources."""
    path = folder / f"{board.profile}.toml"
    profile = path.read_text()
    start, end = profile.index(BEGIN), profile.index(END) + len(END)
    profile = profile[:start] + text + profile[end:]
    line = f'simulation = "{source_text(board)}"'
    if re.search(r"(?m)^simulation = ", profile):
        profile = re.sub(r"(?m)^simulation = .*$", lambda _: line, profile)
    else:
        profile = re.sub(r"(?ms)(^\[sources\]\n.*?)(\n\n)", lambda m: f"{m[1]}\n{line}{m[2]}", profile, count=1)
    tomllib.loads(profile)
    path.write_text(profile)
