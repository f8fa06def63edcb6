"""Leave-one-network-out of the latency pool: the network is left out on all boards, and the spreads are chosen without it."""

import json
from itertools import product
from pathlib import Path

import numpy as np
from latency_pool import Pool, Spread
from published_latencies import CLOCK_HZ, Key, Published

GRID = tuple(Spread(one=one, noise=noise) for one, noise in product((0.1, 0.2), (0.1, 0.15)))
"""What is chosen among, inside each fold, by leaving the other networks out in turn."""

INNER_FOLDS = 5
_OWN_WEIGHT = 10  # A group's own quantile weighs as much as the pooled one when it has so many networks.
_LEVEL = 0.9


def choose(data: Published, chosen: np.ndarray) -> tuple[Spread, Pool]:
    """The spread with the least mean error over all groups, a fifth of the networks left out at a time, and its fit."""
    best: tuple[float, Spread, Pool] | None = None
    for spread in GRID:
        pool = Pool(data.rows, chosen, spread, CLOCK_HZ)
        errors = np.empty(len(chosen))
        for fold in range(INNER_FOLDS):
            inside = data.rows.network[chosen] % INNER_FOLDS == fold
            fitted = Pool(data.rows, chosen[~inside], spread, CLOCK_HZ, pool.constants)
            errors[inside] = data.rows.times[chosen[inside]] - fitted.predicted(chosen[inside])
        score = float(np.mean(list(data.group_errors(errors, chosen).values())))
        if best is None or score < best[0]:
            best = score, spread, pool
    if best is None:
        raise ValueError("the grid of spreads is empty")
    return best[1], best[2]


def left_out(data: Published) -> np.ndarray:
    """Logarithms of nanoseconds of every row, each predicted by a fit that saw nothing of its network."""
    predicted = np.empty(len(data.rows.times))
    for network, name in enumerate(data.networks):
        outside = np.flatnonzero(data.rows.network != network)
        inside = np.flatnonzero(data.rows.network == network)
        spread, pool = choose(data, outside)
        predicted[inside] = pool.predicted(inside)
        error = float(np.mean(np.abs(np.expm1(predicted[inside] - data.rows.times[inside]))))
        print(f"  {name}: {error:.1%} ({spread})", flush=True)
    return predicted


def bands(data: Published, errors: np.ndarray, without: int | None = None) -> dict[Key, float]:
    """The factor within which 90 % of a group's networks lie: its own quantile and that of all groups of its kind, weighed.

    Args:
        errors: Logarithms of measured over predicted, of every row.
        without: A network whose rows are not looked at.
    """
    keep = np.ones(len(errors), bool) if without is None else data.rows.network != without
    size = np.abs(errors)
    int8 = np.array([key[2] == "int8" for key in data.keys])
    pooled = {kind: float(np.quantile(size[keep & (int8 == kind)], _LEVEL)) for kind in (False, True)}
    found = {}
    for group, key in enumerate(data.groups):
        own = size[keep & (data.rows.configuration == group)]
        quantile = float(np.quantile(own, _LEVEL)) if len(own) else 0.0
        weight = len(own) / (len(own) + _OWN_WEIGHT)
        found[key] = float(np.exp(weight * quantile + (1 - weight) * pooled[key[2] == "int8"]))
    return found


def coverage(data: Published, errors: np.ndarray) -> dict[str, tuple[float, float]]:
    """Share of rows inside their band and geometric mean of its width (high over low); a band is made without its network."""
    made = [bands(data, errors, network) for network in range(len(data.networks))]
    factor = np.array([made[n][key] for n, key in zip(data.rows.network, data.keys, strict=True)])
    inside = np.abs(errors) <= np.log(factor)
    int8 = np.array([key[2] == "int8" for key in data.keys])
    every = np.ones(len(errors), bool)
    return {
        name: (float(inside[which].mean()), float(np.exp(2 * np.log(factor[which]).mean())))
        for name, which in (("all", every), ("floating point", ~int8), ("int8", int8))
    }


def save(path: Path, data: Published, predicted: np.ndarray) -> None:
    """Keep the predictions in the scorer's form."""
    rows = [
        {name: row[name] for name in ("board", "threads", "precision", "network")} | {"predicted_ms": float(f"{ms:.4g}")}
        for row, ms in zip(data.table, np.exp(predicted) / 1e6, strict=True)
    ]
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def read(path: Path, data: Published) -> np.ndarray:
    """Logarithms of nanoseconds of every row, as `save` kept them."""
    kept = {(r["board"], r["threads"], r["precision"], r["network"]): r["predicted_ms"] for r in json.loads(path.read_text())}
    return np.log([kept[(*key, row["network"])] * 1e6 for key, row in zip(data.keys, data.table, strict=True)])
