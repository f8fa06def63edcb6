"""The tables that bench/fit_profiles.py writes: latency models of the built-in profiles, and the prior for other machines."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path

import numpy as np
from latency_block import replace_block
from latency_pool import Configuration
from left_out_networks import bands, choose, read
from published_latencies import CLOCK_HZ, Published

from orchestrator.hardware import latency_fit
from orchestrator.hardware.features import UNITS
from orchestrator.hardware.latency_fit import Core, Observation, fit_latency_model, rounded
from orchestrator.hardware.latency_model import combined
from orchestrator.hardware.profile_file import load_profile
from orchestrator.values.profile import LatencyModel, NumberFormat

# What no left-out network shows, as factors of a 90 % band: the simulation against published times of ncnn; that its constants
# were fitted to ncnn and are used for onnxruntime, for which next to nothing is published; the speed-up of threads, which
# is ncnn's; and counts of a neighbouring core. The second and the last are our judgement.
SIMULATION, OTHER_RUNTIME, OTHER_THREADS, OTHER_CORE = 1.2, 1.5, 1.35, 1.3

_ENOUGH_BOARDS = 4  # with one core, to tell from them alone how far a further one may be off


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """Where the constants of one profile come from.

    Attributes:
        rows: Names in published.json; none: from covariates and from boards with the same core.
        formats: What ncnn computes in here.
        cpu: The simulated CPU whose counts of onnxruntime stand in for the cores.
        core_name, core: For a board without rows.
        alike: A published board with the same chip at another clock; half of what it has of its own is taken over.
    """

    rows: tuple[str, ...] = ()
    formats: tuple[NumberFormat, NumberFormat]
    threads: tuple[int, ...] = (1, 4)
    cpu: str
    core_name: str = ""
    core: Core | None = None
    alike: str | None = None


_OLD: tuple[NumberFormat, NumberFormat] = ("float32", "int8")
_NEW: tuple[NumberFormat, NumberFormat] = ("float16", "int8")
BOARDS = {
    "raspberry-pi-4": Board(rows=("Raspberry Pi 4B",), formats=_OLD, cpu="cortex-a72"),
    "raspberry-pi-zero-2-w": Board(rows=("Raspberry Pi Zero 2 W",), formats=_OLD, cpu="cortex-a53"),
    "raspberry-pi-5": Board(rows=("Raspberry Pi 5",), formats=_NEW, cpu="cortex-a76"),
    "snapdragon-855-plus": Board(rows=("Snapdragon 855+ phone",), formats=_NEW, cpu="cortex-a76"),
    "snapdragon-8-gen-2": Board(rows=("Snapdragon 8 Gen 2 phone",), formats=_NEW, cpu="cortex-a76"),
    "rk3588": Board(rows=("Radxa ROCK 5B", "OrangePi 5 [Cortex-A76]"), formats=_NEW, cpu="cortex-a76"),
    "raspberry-pi-3b-plus": Board(  # BCM2837B0; the Zero 2 W's RP3A0 holds the same four cores (BCM2710A1)
        formats=_OLD,
        cpu="cortex-a53",
        core_name="Cortex-A53",
        core=Core(clock_hz=1.4e9, in_order=True),
        alike="Raspberry Pi Zero 2 W",
    ),
    "jetson-orin-nano": Board(
        formats=_NEW,
        cpu="cortex-a76",
        threads=(1, 2, 4),
        core_name="Cortex-A78AE",
        core=Core(clock_hz=1.5e9, half=True, dot=True),
    ),
}
SIMULATED = {"cortex-a72": "raspberry-pi-4", "cortex-a76": "raspberry-pi-5", "cortex-a53": "raspberry-pi-zero-2-w"}
"""The board whose published times the cycles of a simulated CPU were fitted to."""
CYCLES = {"cortex-a72": (0.77, 15.8, 5.3), "cortex-a53": (1.53, 5.8, 14.4), "cortex-a76": (0.82, 4.4, 2.2)}
"""Cycles for one simulated cycle, one L1 miss and one L2 miss (prototypes/simulated-arm NOTES.md), where a profile has none."""
INT8_SHARE = {"cortex-a72": 120 / 181, "cortex-a76": 61 / 181, "cortex-a53": 120 / 181}
"""Instructions of MobileNetV2 in int8 (the better scheme) over float32, in onnxruntime: for CPUs without counts of int8."""


class Tables:
    """The pool fitted to all rows, and what follows from it for each profile."""

    def __init__(self, shared: Path, profiles: Path, kept: Path) -> None:
        """Fit; `kept` holds the predictions of networks left out, which say how wide the bands are."""
        unseen = [
            Configuration(board=name, core_name=board.core_name, core=board.core, number_format=number_format, threads=threads)
            for name, board in BOARDS.items()
            if board.core is not None
            for number_format in board.formats
            for threads in board.threads
        ]
        self.shared, self.profiles = shared, profiles
        self.data = Published(shared / "cases/boards", unseen)
        self.errors = self.data.rows.times - read(kept, self.data)
        self.all = np.arange(len(self.data.rows.times))
        self.spread, self.pool = choose(self.data, self.all)
        self.bands = bands(self.data, self.errors)
        self.mean_errors = self.data.group_errors(self.errors, self.all)

    def ncnn(self, name: str, number_format: NumberFormat, threads: int) -> LatencyModel:
        """The table for ncnn: of the board's own rows, or from boards with the same core."""
        board, data = BOARDS[name], self.data
        precision = {"float32": "fp32", "float16": "fp16"}.get(number_format, number_format)
        keys = [key for key in data.groups if key[0] in (board.rows or ()) and key[1:] == (threads, precision)]
        if board.core is None:
            constants = np.mean([self.pool.constants[data.groups.index(key)] for key in keys], axis=0)
            count = sum(key in keys for key in data.keys)
            error, mean = max(self.bands[key] for key in keys), max(self.mean_errors[key] for key in keys)
            said = f"{count} published times of ncnn ({' and '.join(key[0] for key in keys)}), with what other boards share"
            return _table("ncnn", number_format, threads, constants, error, mean, said)
        wanted = next(
            i
            for i, c in enumerate(data.rows.configurations)
            if (c.board, c.number_format, c.threads) == (name, number_format, threads)
        )
        constants = self.pool.constants[wanted]
        if board.alike is not None:
            other = data.groups.index((board.alike, threads, precision))
            clocks = [data.rows.configurations[i].core.clock_hz or CLOCK_HZ for i in (wanted, other)]
            constants = (constants + self.pool.constants[other] + np.log(clocks[1] / clocks[0])) / 2
        int8 = number_format == "int8"
        network = float(np.median([band for key, band in self.bands.items() if (key[2] == "int8") == int8]))
        error = combined(self._board_error(board.core_name, int8), network)
        said = f"no times of this board: published times of ncnn on other boards with the {board.core_name}, scaled by the clock"
        if board.alike is not None:
            said += f", and as much those of {board.alike} (the same chip)"
        return _table("ncnn", number_format, threads, constants, error, None, said)

    def _board_error(self, core_name: str, int8: bool) -> float:
        """The 90 % quantile over boards that are left out whole: those with that core, or with any that several boards have."""
        data = self.data
        boards = np.array([data.rows.configurations[c].board for c in data.rows.configuration])
        cores = np.array([data.rows.configurations[c].core_name for c in data.rows.configuration])
        errors = self.pool.left_out(boards)
        common = {core for core in cores if len(set(boards[cores == core])) > 1}
        if len(set(boards[cores == core_name])) >= _ENOUGH_BOARDS:
            common = {core_name}
        which = [core in common and (key[2] == "int8") == int8 for core, key in zip(cores, data.keys, strict=True)]
        return exp(float(np.quantile(np.abs(errors[which]), 0.9)))

    def onnxruntime(self, name: str) -> Iterator[LatencyModel]:
        """Tables for onnxruntime: fitted to simulated times of one thread; the step to more threads is ncnn's."""
        board = BOARDS[name]
        cpu = board.cpu if self._counts(board.cpu) else "cortex-a72"
        own = SIMULATED[board.cpu]
        floating = board.formats[0]
        here, there = self.ncnn(name, floating, 1), self.ncnn(SIMULATED[cpu], BOARDS[SIMULATED[cpu]].formats[0], 1)
        core = board.core or self._core(board.rows[0])
        said = f"simulated times of onnxruntime 1.31.1 (counts on a {cpu}, cycles fitted to ncnn on a {SIMULATED[cpu]})"
        if name != SIMULATED[cpu]:
            said += ", carried over by ncnn's estimates for the two boards"
        said += "; no onnxruntime time on the board stands behind it"
        observed = self._simulated(cpu)
        carried = {
            network: _milliseconds(here, self.data, network) / _milliseconds(there, self.data, network) for network in observed
        }
        wider = [SIMULATION, OTHER_RUNTIME, *([OTHER_CORE] if cpu != board.cpu or name != own else [])]
        if board.core is not None:
            wider.append(self._board_error(board.core_name, int8=False))
        models: dict[NumberFormat, LatencyModel] = {}
        for number_format in _OLD:
            rows = [
                Observation(name=n, graph=self.data.graphs[n], milliseconds=times[number_format] * carried[n])
                for n, times in observed.items()
                if number_format in times
            ]
            if len(rows) >= latency_fit.LEAST_OBSERVATIONS:
                models[number_format] = fit_latency_model(
                    rows,
                    runtime="onnxruntime",
                    number_format=number_format,
                    threads=1,
                    core=core,
                    fitted_on=said,
                    source="estimates",
                )
            else:
                plain = models["float32"]
                share = {k: v if k == "operator" else rounded(v * INT8_SHARE[cpu]) for k, v in plain.nanoseconds.items()}
                less = f"{said}; int8 by the share of instructions that MobileNetV2 has left in it"
                models[number_format] = replace(
                    plain, number_format="int8", nanoseconds=share, error=plain.error * 1.2, mean_error=None, fitted_on=less
                )
        for number_format, model in models.items():
            base = self.ncnn(name, "int8" if number_format == "int8" else floating, 1)
            for threads in board.threads:
                more = self.ncnn(name, base.number_format, threads)
                steps = {k: more.nanoseconds[k] / base.nanoseconds[k] for k in UNITS}
                error = combined(model.error, *wider, *([OTHER_THREADS] if threads > 1 else []))
                yield replace(
                    model,
                    threads=threads,
                    nanoseconds={k: rounded(v * steps[k]) for k, v in model.nanoseconds.items()},
                    error=round(error, 2),
                    mean_error=None,
                    fitted_on=model.fitted_on + ("" if threads == 1 else "; more threads as in ncnn"),
                )

    def _core(self, board: str) -> Core:
        return next(c.core for c in self.data.rows.configurations if c.board == board)

    def _counts(self, cpu: str) -> Mapping[str, Mapping[str, tuple[float, float, float]]]:
        """Of each network and number format: pipeline cycles, misses of L1 and of L2."""
        kept = Path(__file__).parent / "simulated" / "onnxruntime.json"
        found: dict[str, dict[str, tuple[float, float, float]]] = {}
        if kept.is_file():
            for network, kinds in json.loads(kept.read_text()).get(cpu, {"networks": {}})["networks"].items():
                for kind, c in kinds.items():
                    number_format = "int8" if kind == "int8" else "float32"
                    found.setdefault(network, {})[number_format] = (c["pipeline_cycles"], c["l1_misses"], c["l2_misses"])
        if not found:
            counts = json.loads((self.shared / "prototypes/simulated-arm/counts.json").read_text())
            for key, c in counts.items():
                runtime, _, core, network = key.split("/")
                if runtime == "ort" and cpu == f"cortex-{core}":
                    found[network] = {"float32": (c["sim"], c["l1"], c["l2"])}
        return {network: formats for network, formats in found.items() if network in self.data.graphs}

    def _simulated(self, cpu: str) -> dict[str, dict[str, float]]:
        """Milliseconds of each network and number format, with one thread, on the board that the cycles were fitted to."""
        profile = load_profile(str(self.profiles / f"{SIMULATED[cpu]}.toml"), {})
        simulation = profile.simulation("onnxruntime", cpu)
        cycles = CYCLES[cpu]
        if simulation is not None:
            cycles = tuple(simulation.cycles.get(name, 0.0) for name in ("pipeline", "l1_miss", "l2_miss"))  # type: ignore[assignment]
        clock = profile.clusters[0].clock_hz or 1e9
        return {
            network: {
                number_format: sum(a * b for a, b in zip(cycles, counts, strict=True)) / clock * 1e3
                for number_format, counts in formats.items()
            }
            for network, formats in self._counts(cpu).items()
        }


def _table(
    runtime: str, number_format: NumberFormat, threads: int, constants: np.ndarray, error: float, mean: float | None, said: str
) -> LatencyModel:
    prices = np.exp(constants).tolist()
    return LatencyModel(
        runtime=runtime,
        number_format=number_format,
        threads=threads,
        nanoseconds={name: rounded(value) for name, value in zip(UNITS, prices, strict=True)},
        error=round(error, 2),
        mean_error=None if mean is None else round(mean, 3),
        fitted_on=said,
        source="estimates",
    )


def _milliseconds(model: LatencyModel, data: Published, network: str) -> float:
    amounts = latency_fit.amounts_of(data.graphs[network], model.number_format, model.runtime)
    return sum(a * model.nanoseconds[name] for name, a in zip(UNITS, amounts, strict=True)) / 1e6


def graphics_card() -> Iterator[LatencyModel]:
    """nvidia-t4: not fitted. Rates of the data sheet; every byte passes through memory, every product is arithmetic."""
    said = (
        "not fitted: published throughput of ResNet-50 at large batches in PyTorch, and data-sheet figures; no onnxruntime time "
        "on the card stands behind it"
    )
    traffic = ("activation", "weight", "fused", "elementwise", "move", "dense")
    for number_format, macs_per_second, size in (("float32", 1.75e12, 4), ("float16", 4.90e12, 2)):
        costs = dict.fromkeys(UNITS, 0.0)
        products = ("pointwise", "winograd", "convolution", "image", "depthwise", "depthwise_strided", "matmul")
        costs |= dict.fromkeys(products, rounded(1e9 / macs_per_second))
        costs |= dict.fromkeys(traffic, rounded(size * 1e9 / 3.2e11))
        yield LatencyModel(
            runtime="onnxruntime", number_format=number_format, threads=1, nanoseconds=costs | {"operator": 3800.0},  # type: ignore[arg-type]
            error=4.1, fitted_on=said, source="throughput",
        )  # fmt: skip


def write_profiles(shared: Path, profiles: Path, kept: Path) -> None:
    """Write the tables of every built-in profile that is known here, between the two marks, and the prior."""
    tables = Tables(shared, profiles, kept)
    write_prior(tables, Path(latency_fit.__file__).with_name("prior.toml"))
    for name, board in BOARDS.items():
        path = profiles / f"{name}.toml"
        models = [tables.ncnn(name, f, t) for f in board.formats for t in board.threads]
        least = min(graph.macs for graph in tables.data.graphs.values())
        replace_block(path, [replace(m, least_macs=least) for m in (*tables.onnxruntime(name), *models)])
    replace_block(profiles / "nvidia-t4.toml", list(graphics_card()))
    print(f"written: {len(BOARDS) + 1} profiles; spread chosen on all rows: {tables.spread}")


def write_prior(tables: Tables, path: Path) -> None:
    """What a machine without rows starts from: `hardware.fitting` reads it."""
    floating = np.array([key[2] != "int8" for key in tables.data.keys])
    lines = [
        "# Written by bench/fit_profiles.py: what latency models start from on a machine that was not seen. Logarithms of",
        "# nanoseconds a unit at 1 GHz, as sums over covariates of the core, and how far machines stray from them.",
        'runtime = "ncnn"',
        "clock_hz = 2e9  # assumed where a core's clock is not known",
        "# Standard deviation of the logarithm of times of networks that were left out (floating point, outliers aside).",
        f"model_error = {1.483 * float(np.median(np.abs(tables.errors[floating]))):.3f}",
    ]
    for covariate, slopes in tables.pool.slopes().items():
        lines += ["", f"[mean.{covariate}]", *(f"{n} = {v:.4f}" for n, v in zip(UNITS, slopes, strict=True))]
    deviations = zip(UNITS, tables.pool.deviations(), strict=True)
    lines += ["", "[deviation]", *(f"{name} = {value:.3f}" for name, value in deviations)]
    path.write_text("\n".join(lines) + "\n")
