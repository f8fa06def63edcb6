"""Published latencies of ncnn (Tencent/ncnn benchmark/README.md) as rows of the pool, and their scores."""

import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from latency_pool import Configuration, Rows

from orchestrator.hardware.graph import GraphCount, count
from orchestrator.hardware.latency_fit import Core, amounts_of
from orchestrator.values.profile import NumberFormat

CLOCK_HZ = 3.2e9
"""Of the one board whose clock is not published (MacBook Pro M1: Apple's figure for its fast cores)."""

Key = tuple[str, int, str]
"""Board, threads and precision: a group of the scorer."""

_FORMATS: Mapping[str, NumberFormat] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_IN_ORDER = {"Cortex-A7", "Cortex-A53", "Cortex-A55"}
_BEFORE_ARMV82 = {"Cortex-A7", "Cortex-A53", "Cortex-A57", "Cortex-A72", "Cortex-A73"}
_SAME_CORE = {"Kryo485": "Cortex-A76"}


class Published:
    """The rows of published.json, with the networks' graphs counted."""

    def __init__(self, folder: Path, more: Iterable[Configuration] = ()) -> None:
        """Read them.

        Args:
            folder: With published.json, models/ and score.py.
            more: Configurations without rows, which the pool is asked about.
        """
        self.folder = folder
        self.table: list[dict[str, Any]] = json.loads((folder / "published.json").read_text())
        self.networks = sorted({row["network"] for row in self.table})
        self.graphs: dict[str, GraphCount] = {n: count(folder / "models" / f"{n}.onnx") for n in self.networks}
        self.keys: list[Key] = [(row["board"], row["threads"], row["precision"]) for row in self.table]
        first = dict(zip(reversed(self.keys), reversed(self.table), strict=True))
        self.groups = sorted(first)
        amounts = {
            (n, precision): np.array(amounts_of(self.graphs[n], number_format, "ncnn"))
            for n in self.networks
            for precision, number_format in _FORMATS.items()
        }
        self.rows = Rows(
            configurations=[*(_configuration(first[key]) for key in self.groups), *more],
            configuration=np.array([self.groups.index(key) for key in self.keys]),
            network=np.array([self.networks.index(row["network"]) for row in self.table]),
            amounts=np.array([amounts[row["network"], row["precision"]] for row in self.table]),
            times=np.log([row["min_ms"] * 1e6 for row in self.table]),
        )

    def group_errors(self, errors: np.ndarray, chosen: np.ndarray) -> dict[Key, float]:
        """Mean relative error of each group, from logarithms of measured over predicted."""
        relative = np.abs(np.expm1(-errors))
        found: dict[Key, list[float]] = {}
        for row, error in zip(chosen, relative, strict=True):
            found.setdefault(self.keys[row], []).append(float(error))
        return {key: float(np.mean(values)) for key, values in found.items()}

    def scored(self, milliseconds: np.ndarray) -> dict[Key, dict[str, float]]:
        """The scorer's figures by group."""
        predicted = [_named(row) | {"predicted_ms": float(ms)} for row, ms in zip(self.table, milliseconds, strict=True)]
        found: dict[Key, dict[str, float]] = _module(self.folder / "score.py").score(predicted, self.table)[0]
        return found

    def reference(self) -> dict[Key, dict[str, float]]:
        """The same of the reference predictor, which leaves the same networks out."""
        module = _module(self.folder / "reference_predictor.py")
        operators, _ = module.load([str(self.folder / "models")], [])
        features = {name: module.features(listed) for name, listed in operators.items()}
        predicted, _, _ = module.run_pool(features, self.table, [])
        found: dict[Key, dict[str, float]] = _module(self.folder / "score.py").score(predicted, self.table)[0]
        return found


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("board", "threads", "precision", "network")}


def _configuration(row: Mapping[str, Any]) -> Configuration:
    clock = row["clock_ghz"]
    recent = row["cpu"] not in _BEFORE_ARMV82
    return Configuration(
        board=row["board"],
        core_name=_SAME_CORE.get(row["cpu"], row["cpu"]),
        core=Core(
            clock_hz=clock * 1e9 if clock else None, in_order=row["cpu"] in _IN_ORDER, half=recent, dot=bool(row["int8_dot"])
        ),
        number_format=_FORMATS[row["precision"]],
        threads=row["threads"],
    )


def _module(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))  # they import one another by name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
