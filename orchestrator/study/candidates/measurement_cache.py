"""The measurement cache: times and scores of the very same file, by the same code, on the same machine, kept in the store.

Each value is dated. Disturbed measurements are not kept, nor those of a device that does not identify its machine; the last
measurement of the front is always made.
"""

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.building.cache_keys import (
    FORM,
    code_digest,
    digest_of,
    file_digest,
    machine_of,
    package_digest,
    this_machine,
    versions,
)
from orchestrator.building.store import Store
from orchestrator.measuring.model_info import ModelInfo
from orchestrator.measuring.scoring import BESIDE, CPU_PROVIDER, OBJECTIVE, Evaluator, RunValues, estimated
from orchestrator.values.device import HOST
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult

MEASURING = ("measuring", "devices", "values")
"""Packages of this product that measurements depend on."""
LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "psutil")
MODEL, LATENCY, QUALITY = "model", "latency", "quality"
"""Parts of a candidate that may come from the store, as `CandidateResult.reused` names them."""
_LATENCY: TypeAdapter[Any] = TypeAdapter(LatencyResult)
_QUALITY: TypeAdapter[Any] = TypeAdapter(QualityResult)


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedScore:
    """The quality of a file that an earlier run scored.

    Attributes:
        key: Key under which a quality is stored; None if it is not.
        quality: The stored quality, or None.
    """

    key: str | None = None
    quality: QualityResult | None = None


class MeasurementCache:
    """Measurements of one task in one runtime.

    Args:
        store: None to keep nothing.
        task: Identifies the data in keys.

    Attributes:
        judge: Identifies the metric in keys; None if it is unknown: then no quality is stored.
        notes: What the user should know.
    """

    def __init__(self, store: Store | None, task: Any) -> None:
        self._store, self._task, self._since = store, task, time.time()
        self.judge: str | None = None
        self.notes: list[str] = []

    def use(self, store: Store | None, task: Any) -> None:
        """Read and write this store from now on."""
        self._store, self._task = store, task

    def run(self, evaluator: Evaluator, model: ModelInfo, baseline: Path | None) -> tuple[RunValues, bool]:
        """Return the result of `Evaluator.run`, and True if it comes from the store."""
        target = evaluator.target
        plan = asdict(OBJECTIVE if target.is_device else BESIDE)
        key = self._key("timing", evaluator, model, baseline, plan)
        stored = self._get(key)
        if stored is None:
            values = evaluator.run(model, baseline)
            measured = next(latency for latency in values.latency if latency.evidence.is_measured)
            if measured.disturbed is None:
                more = {"memory": values.peak_memory_bytes, "energy": values.energy_mj, "samples": values.samples}
                self._put(key, {"latency": _LATENCY.dump_python(measured, mode="json"), **more})
            return values, False
        latency = [self._dated(stored)]
        if model.estimate is not None:
            latency.insert(1 if target.is_device else 0, estimated(model.estimate, target))
        samples = tuple(stored["samples"])
        values = RunValues(latency=latency, peak_memory_bytes=stored["memory"], energy_mj=stored["energy"], samples=samples)
        return values, True

    def briefly(self, evaluator: Evaluator, model: ModelInfo, baseline: Path) -> tuple[LatencyResult, float]:
        """Return the result of `Evaluator.briefly`, and the seconds that its measurement took."""
        key = self._key("brief", evaluator, model, baseline, asdict(BESIDE))
        stored = self._get(key)
        if stored is not None:
            return self._dated(stored), stored["seconds"]
        start = time.monotonic()
        latency = evaluator.briefly(model, baseline)
        seconds = round(time.monotonic() - start, 3)
        if latency.disturbed is None:
            self._put(key, {"latency": _LATENCY.dump_python(latency, mode="json"), "seconds": seconds})
        return latency, seconds

    def score(self, evaluator: Evaluator, model: ModelInfo, baseline: Path | None, split: str) -> CachedScore:
        """Return the stored quality of a file's outputs on a split, with the key for a new one."""
        if self.judge is None:
            return CachedScore()
        key = self._key("quality", evaluator, model, baseline, [split, self.judge, model.batch])
        stored = self._get(key)
        return CachedScore(key=key, quality=None if stored is None else _QUALITY.validate_python(stored["quality"]))

    def keep_quality(self, cached: CachedScore, quality: QualityResult) -> None:
        """Store a quality that was scored now."""
        if cached.quality is None:
            self._put(cached.key, {"quality": _QUALITY.dump_python(quality, mode="json")})

    # -- the store ------------------------------------------------------------------------------------------------------

    def _key(self, what: str, evaluator: Evaluator, model: ModelInfo, baseline: Path | None, more: Any) -> str | None:
        if self._store is None or not self._store.keeps or (machine := _machine(evaluator)) is None:
            return None
        settings = evaluator.settings(model.runtime)
        both = (settings["options"], settings.get("beside_options", {}))
        if any(options.get("providers", CPU_PROVIDER) != CPU_PROVIDER for options in both):
            return None  # the description of a machine does not name its accelerator
        beside = None if baseline is None else file_digest(baseline)
        code = [versions(LIBRARIES), package_digest(*MEASURING), code_digest(type(evaluator.device).__module__)]
        return digest_of([FORM, what, model.digest, beside, self._task, settings, machine, code, more])

    def _get(self, key: str | None) -> Any:
        content = None if self._store is None or key is None else self._store.get("figures", key)
        return None if content is None else json.loads(content)

    def _put(self, key: str | None, value: dict[str, Any]) -> None:
        if self._store is not None and key is not None:
            self._store.put("figures", key, json.dumps({**value, "at": time.time()}).encode())

    def _dated(self, stored: dict[str, Any]) -> LatencyResult:
        """Return a stored latency with a note of when it was measured."""
        latency: LatencyResult = _LATENCY.validate_python(stored["latency"])
        note = f"measured {datetime.fromtimestamp(stored['at'], UTC):%Y-%m-%d %H:%M} UTC"
        if stored["at"] >= self._since:
            note += ", of the same file"
        else:
            note += f" in an earlier run, on this {'machine' if latency.device == HOST else 'device'}"
        return replace(latency, note=f"{latency.note}; {note}" if latency.note else note)


def count_reused(candidates: Sequence[CandidateResult]) -> dict[str, int]:
    """Return how many candidates have something from the store, in all and by its kind."""
    by_kind = {kind: sum(kind in c.reused for c in candidates) for kind in (MODEL, LATENCY, QUALITY)}
    return {"candidates": sum(bool(c.reused) for c in candidates), **by_kind}


def reuse_notes(reused: dict[str, int], candidates: int) -> list[str]:
    """Return the counts of `count_reused` as a note; none if nothing was reused."""
    if not reused["candidates"]:
        return []
    text = f"{reused[MODEL]} of {candidates} models came from the store, where an earlier build keeps them"
    if reused[LATENCY] or reused[QUALITY]:
        text += f"; so did {reused[LATENCY]} times, taken on the same device, and {reused[QUALITY]} scores"
    return [f"{text} (--store none makes everything anew)"]


def _machine(evaluator: Evaluator) -> dict[str, Any] | None:
    """Return what identifies the machine of the measurements; None if it is not certain."""
    device = evaluator.device
    return _host() if device.scheme == HOST else _described(evaluator)


@functools.cache
def _host() -> dict[str, Any] | None:
    return this_machine()


@functools.lru_cache(maxsize=64)
def _described(evaluator: Evaluator) -> dict[str, Any] | None:
    facts = evaluator.device.environment()
    return machine_of(facts) if facts.get("versions") else None  # without them an update of the device goes unnoticed
