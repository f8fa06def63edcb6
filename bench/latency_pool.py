"""One latency model for many boards at once: what they share, what their cores share, and what is a board's own.

The logarithm of a feature's constant on one configuration (board, number format, threads) is a normal variable: a mean that
goes by covariates of the core, and deviations that are shared by all, by cores of one kind, by the configurations of one board,
or by nobody. Beside the features one by one, groups of them (arithmetic, traffic, fixed cost) and the configuration as a whole
deviate together. What the model cannot explain of a network is shared too: by all boards, by those of one core, by one board.
So fifty rows of one network count little more than one where they err alike. This is a Gaussian process over configurations
(Rasmussen and Williams 2006); since latencies are sums, it is fitted by Gauss-Newton steps on their logarithms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from orchestrator.hardware.features import UNITS
from orchestrator.hardware.latency_fit import Core, covariates
from orchestrator.values.profile import NumberFormat

COMPUTE, TRAFFIC, STREAM, OVERHEAD = "compute", "traffic", "stream", "overhead"
KIND = {
    **dict.fromkeys(UNITS, COMPUTE),
    **dict.fromkeys(("activation", "fused", "elementwise", "move", "unpacked"), TRAFFIC),
    **dict.fromkeys(("dense", "spilled", "winograd_weight", "weight"), STREAM),
    **dict.fromkeys(("operator", "group"), OVERHEAD),
}
GROUPS = {COMPUTE: 0, TRAFFIC: 1, STREAM: 1, OVERHEAD: 2}

# What one unit of a feature costs, in multiply-accumulates of a 1x1 convolution: rough expectations, from what kernels do (a
# Winograd transform touches an element four times, a Swish costs an exponential and a division, ...). "matmul": simulated
# counts of ncnn's linear layer over many rows against its 1x1 convolution on a Cortex-A72 (prototypes/simulated-arm).
EXPECTED = {
    "pointwise": 1.0, "winograd": 1.0, "winograd_transform": 4.0, "winograd_weight": 2.0, "convolution": 1.1, "image": 1.0,
    "depthwise": 2.5, "depthwise_strided": 4.0, "group": 1e5, "dense": 4.0, "matmul": 2.5, "activation": 2.5, "weight": 2.0,
    "fused": 6.0, "elementwise": 4.0, "move": 3.0, "pool": 2.0, "exponential": 20.0, "normalization": 20.0, "unpacked": 6.0,
    "spilled": 4.0, "operator": 4e4,
}  # fmt: skip
# How much less certain than the others these expectations are.
VAGUE = {"group": 2.0, "dense": 1.5, "matmul": 1.5, "fused": 2.0, "exponential": 1.5, "normalization": 1.5, "image": 1.5,
         "operator": 1.5, "move": 1.5, "spilled": 2.0}  # fmt: skip
# How the costs go with the covariates: more threads share arithmetic, hardly memory, and no fixed cost; wider cores and shorter
# numbers the same; in-order cores suffer most in arithmetic. Factors; the exponents of threads are of their number.
THREADS = {COMPUTE: -0.85, TRAFFIC: -0.6, STREAM: -0.25, OVERHEAD: 0.0}
RECENT = {COMPUTE: 0.55, TRAFFIC: 0.65, STREAM: 0.8, OVERHEAD: 0.7}
HALF = {COMPUTE: 0.55, TRAFFIC: 0.7, STREAM: 1.0, OVERHEAD: 1.0}
IN_ORDER = {COMPUTE: 2.0, TRAFFIC: 1.8, STREAM: 1.65, OVERHEAD: 1.65}
_PRODUCTS = ("pointwise", "winograd", "convolution", "image", "matmul")
INT8 = {**dict.fromkeys(UNITS, 0.8), **dict.fromkeys(_PRODUCTS, 0.75), "depthwise": 1.0, "depthwise_strided": 1.0, "group": 1.0,
        "operator": 1.0, "winograd_transform": 1.0, "exponential": 1.0, "normalization": 1.0, "dense": 0.6,
        "winograd_weight": 0.6, "weight": 0.5}  # fmt: skip
# The dot product takes 8-bit integers; Winograd's transforms leave 16-bit ones, which gain nothing.
INT8_DOT = {**dict.fromkeys(UNITS, 1.0), **dict.fromkeys(_PRODUCTS, 0.6), "winograd": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One board with one number format and number of threads; `core_name` tells cores of one kind."""

    board: str
    core_name: str
    core: Core
    number_format: NumberFormat
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Standard deviations of logarithms: of what is shared by whom.

    Attributes:
        one, noise: The two that are chosen by leaving networks out (bench/left_out_networks.py): of the constants that all
            configurations share, and of a single row.
        int8: Of what int8 does to them.
    """

    one: float = 0.15
    int8: float = 0.3
    noise: float = 0.15

    @property
    def features(self) -> dict[str, float]:
        """Of each feature by itself."""
        return {"one": self.one, "log2_threads": 0.15, "in_order": 0.2, "recent": 0.15, "half": 0.15, "int8": self.int8,
                "int8_dot": 0.8 * self.int8, "core": 0.12, "board": 0.15, "configuration": 0.1}  # fmt: skip

    @property
    def groups(self) -> dict[str, float]:
        """Of groups of features together."""
        return {"log2_threads": 0.25, "in_order": 0.1, "recent": 0.07, "half": 0.07, "int8": self.int8, "int8_dot": self.int8,
                "core": 0.1, "board": 0.15, "board_threads": 0.4, "configuration": 0.1}  # fmt: skip

    @property
    def speed(self) -> dict[str, float]:
        """Of all features together."""
        return {"one": 3.0, "log2_threads": 0.5, "in_order": 0.5, "recent": 0.5, "half": 0.5, "int8": 0.5, "int8_dot": 0.5,
                "core": 0.3, "board": 0.2, "board_threads": 0.2, "board_format": 0.1, "configuration": 0.1}  # fmt: skip

    @property
    def network(self) -> dict[str, float]:
        """Of what the model does not explain of a network."""
        return {"one": 0.06, "core_format": 0.05, "board_format": 0.03}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Observed times: for each its configuration and network (indices), amounts of the features, logarithm of nanoseconds."""

    configurations: Sequence[Configuration]
    configuration: np.ndarray
    network: np.ndarray
    amounts: np.ndarray
    times: np.ndarray
    kernels: Mapping[str, np.ndarray] = field(init=False)
    covariates: Mapping[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        known = [covariates(c.number_format, c.threads, c.core) for c in self.configurations]
        values = {name: np.array([k[name] for k in known]) for name in known[0]}
        board = _same([c.board for c in self.configurations])
        core = _same([c.core_name for c in self.configurations])
        number_format = _same([c.number_format for c in self.configurations])
        kernels = {name: np.outer(v, v) for name, v in values.items()}
        kernels |= {"core": core, "core_format": core * number_format, "board": board, "board_format": board * number_format}
        kernels["board_threads"] = board * _same([c.threads for c in self.configurations])
        kernels["configuration"] = np.eye(len(self.configurations))
        object.__setattr__(self, "kernels", kernels)
        object.__setattr__(self, "covariates", values)


def _same(values: Sequence[object]) -> np.ndarray:
    return np.array([[float(a == b) for b in values] for a in values])


def expected_slopes() -> dict[str, np.ndarray]:
    """The mean of the logarithms of the constants (nanoseconds at 1 GHz) as a sum over covariates, before any row was seen."""
    kinds = [KIND[name] for name in UNITS]
    return {
        "one": np.log([EXPECTED[name] for name in UNITS]) - 1.0,  # about 0.37 cycles for a multiply-accumulate
        "log2_threads": np.log(2) * np.array([THREADS[kind] for kind in kinds]),
        "in_order": np.log([IN_ORDER[kind] for kind in kinds]),
        "recent": np.log([RECENT[kind] for kind in kinds]),
        "half": np.log([HALF[kind] for kind in kinds]),
        "int8": np.log([INT8[name] for name in UNITS]),
        "int8_dot": np.log([INT8_DOT[name] for name in UNITS]),
    }


class Pool:
    """The fit. `constants` holds the logarithms of nanoseconds, one row a configuration, also of those without rows."""

    def __init__(self, rows: Rows, chosen: np.ndarray, spread: Spread, clock_hz: float, start: np.ndarray | None = None) -> None:
        """Fit to the chosen rows.

        Args:
            chosen: Their indices.
            clock_hz: Assumed where a core's clock is not known.
            start: Constants of a fit to the same rows with another spread, to begin the steps from.
        """
        self.rows, self.chosen, self.spread = rows, chosen, spread
        here = rows.configuration[chosen]
        same_network = rows.network[chosen][:, None] == rows.network[chosen][None, :]
        grouping = np.eye(3)[[GROUPS[KIND[name]] for name in UNITS]]
        vague = np.array([VAGUE.get(name, 1.0) for name in UNITS])
        feature, group, speed, network = (
            sum(deviation**2 * rows.kernels[name] for name, deviation in table.items())
            for table in (spread.features, spread.groups, spread.speed, spread.network)
        )
        slopes = expected_slopes()
        mean = sum(np.outer(rows.covariates[name], slopes[name]) for name in slopes)
        mean = mean - np.log([[(c.core.clock_hz or clock_hz) / 1e9] for c in rows.configurations])
        between = np.ix_(here, here)
        fixed = speed[between] + network[between] * same_network
        constants, weights = (mean if start is None else start).copy(), np.ones(len(chosen))
        for step in range(12):
            parts = rows.amounts[chosen] * np.exp(constants[here])
            total = parts.sum(axis=1)
            shares = parts / total[:, None]
            grouped = shares @ grouping
            covariance = feature[between] * ((shares * vague**2) @ shares.T) + group[between] * (grouped @ grouped.T) + fixed
            noise = spread.noise**2 / weights
            target = rows.times[chosen] - np.log(total) + (shares * (constants[here] - mean[here])).sum(axis=1)
            self._factor = cho_factor(covariance + np.diag(noise), lower=True, check_finite=False)
            solved = cho_solve(self._factor, target, check_finite=False)
            if step >= 2:  # outliers weigh less (Huber), once the speeds are found
                weights = np.minimum(1.0, 3.0 * spread.noise / np.maximum(np.abs(noise * solved), 1e-12))
            change = mean - constants + (speed[:, here] @ solved)[:, None]
            change += vague**2 * (feature[:, here] @ (shares * solved[:, None]))
            change += (group[:, here] @ (grouped * solved[:, None])) @ grouping.T
            constants = constants + np.clip(change, -1.0, 1.0)
            if step > 3 and float(np.abs(change).max()) < 0.02:
                break
        self.constants = constants
        self._shares, self._grouped, self._grouping, self._vague, self._solved = shares, grouped, grouping, vague, solved

    def predicted(self, rows: np.ndarray) -> np.ndarray:
        """Logarithms of nanoseconds of these rows."""
        amounts, here = self.rows.amounts[rows], self.rows.configuration[rows]
        return np.log((amounts * np.exp(self.constants[here])).sum(axis=1))

    def left_out(self, blocks: np.ndarray) -> np.ndarray:
        """Errors (logarithms) of every chosen row if its block were left out, linearised around this fit (R&W eq. 5.12)."""
        inverse = cho_solve(self._factor, np.eye(len(self.chosen)), check_finite=False)
        errors = np.empty(len(self.chosen))
        for block in np.unique(blocks):
            inside = np.flatnonzero(blocks == block)
            errors[inside] = np.linalg.solve(inverse[np.ix_(inside, inside)], self._solved[inside])
        return errors

    def slopes(self) -> dict[str, np.ndarray]:
        """The mean for a machine that has no rows, as a sum over covariates: what `hardware.fitting` starts from."""
        found = expected_slopes()
        here = self.rows.configuration[self.chosen]
        for name, value in self.rows.covariates.items():
            seen = value[here] * self._solved
            found[name] = found[name] + self.spread.speed.get(name, 0.0) ** 2 * seen.sum()
            found[name] = found[name] + self.spread.features.get(name, 0.0) ** 2 * self._vague**2 * (seen @ self._shares)
            found[name] = found[name] + self.spread.groups.get(name, 0.0) ** 2 * self._grouping @ (seen @ self._grouped)
        return found

    def deviations(self) -> np.ndarray:
        """How far a machine's constants stray from that mean: standard deviations of the logarithms, in the order of UNITS."""
        own = [self.spread.features[name] for name in ("one", "core", "board", "configuration")]
        together = [self.spread.groups[name] for name in ("core", "board", "board_threads", "configuration")]
        return np.sqrt(sum(d**2 for d in own) * self._vague**2 + sum(d**2 for d in together))
