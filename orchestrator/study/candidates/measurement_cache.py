"""MeasurementCache from the store: what was measured and scored of the very same file, by the same code, on the same machine.

A figure says when it was taken. Disturbed ones are not kept, nor those of a device that does not say what machine it is; the
last measurement of the front is always made anew.
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
from orchestrator.values.evidence import MEASURED
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult

MEASURING = ("measuring", "devices", "values")
"""Packages of this product that figures depend on."""
LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "psutil")
MODEL, LATENCY, QUALITY = "model", "latency", "quality"
"""What of a candidate may come from the store, as its `reused` says."""
KEPT_LATENCY: TypeAdapter[Any] = TypeAdapter(LatencyResult)
KEPT_QUALITY: TypeAdapter[Any] = TypeAdapter(QualityResult)


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedScore:
    """What is known of a file's quality before it is scored.

    Attributes:
        key: Where its quality is to be kept; None: nowhere.
        quality: As it was scored before; None: it was not.
    """

    key: str | None = None
    quality: QualityResult | None = None


class MeasurementCache:
    """MeasurementCache of one task in one runtime.

    Args:
        store: None: nothing is kept.
        task: What stands for the data in keys.

    Attributes:
        judge: What stands for the metric; None while nobody knows: then no quality is kept.
        notes: What the user should know.
    """

    def __init__(self, store: Store | None, task: Any) -> None:
        self._store, self._task, self._since = store, task, time.time()
        self.judge: str | None = None
        self.notes: list[str] = []

    def use(self, store: Store | None, task: Any) -> None:
        """From now on take figures from there and keep them there."""
        self._store, self._task = store, task

    def run(self, evaluator: Evaluator, model: ModelInfo, baseline: Path | None) -> tuple[RunValues, bool]:
        """As `Evaluator.run`, and whether the figures are those of an earlier time."""
        target = evaluator.target
        plan = asdict(OBJECTIVE if target.is_device else BESIDE)
        key = self._key("timing", evaluator, model, baseline, plan)
        kept = self._get(key)
        if kept is None:
            found = evaluator.run(model, baseline)
            measured = next(latency for latency in found.latency if latency.evidence in MEASURED)
            if measured.disturbed is None:
                more = {"memory": found.peak_memory_bytes, "energy": found.energy_mj, "samples": found.samples}
                self._put(key, {"latency": KEPT_LATENCY.dump_python(measured, mode="json"), **more})
            return found, False
        latency = [self._dated(KEPT_LATENCY.validate_python(kept["latency"]), kept["at"])]
        if model.estimate is not None:
            latency.insert(1 if target.is_device else 0, estimated(model.estimate, target))
        samples = tuple(kept["samples"])
        return RunValues(latency=latency, peak_memory_bytes=kept["memory"], energy_mj=kept["energy"], samples=samples), True

    def briefly(self, evaluator: Evaluator, model: ModelInfo, baseline: Path) -> tuple[LatencyResult, float]:
        """As `Evaluator.briefly`, and the seconds that it took, when that was done."""
        key = self._key("brief", evaluator, model, baseline, asdict(BESIDE))
        kept = self._get(key)
        if kept is not None:
            return self._dated(KEPT_LATENCY.validate_python(kept["latency"]), kept["at"]), kept["seconds"]
        start = time.monotonic()
        found = evaluator.briefly(model, baseline)
        seconds = round(time.monotonic() - start, 3)
        if found.disturbed is None:
            self._put(key, {"latency": KEPT_LATENCY.dump_python(found, mode="json"), "seconds": seconds})
        return found, seconds

    def scored(self, evaluator: Evaluator, model: ModelInfo, baseline: Path | None, split: str) -> CachedScore:
        """What is known of the quality of a file's outputs on a split."""
        if self.judge is None:
            return CachedScore()
        key = self._key("quality", evaluator, model, baseline, [split, self.judge, model.batch])
        kept = self._get(key)
        return CachedScore(key=key, quality=None if kept is None else KEPT_QUALITY.validate_python(kept["quality"]))

    def keep_quality(self, scored: CachedScore, quality: QualityResult) -> None:
        """Keep what was scored."""
        if scored.quality is None:
            self._put(scored.key, {"quality": KEPT_QUALITY.dump_python(quality, mode="json")})

    # -- the store ------------------------------------------------------------------------------------------------------

    def _key(self, what: str, evaluator: Evaluator, model: ModelInfo, baseline: Path | None, more: Any) -> str | None:
        if self._store is None or not self._store.keeps or (machine := _machine(evaluator)) is None:
            return None
        settings = evaluator.settings(model.runtime)
        both = (settings["options"], settings.get("beside_options", {}))
        if any(options.get("providers", CPU_PROVIDER) != CPU_PROVIDER for options in both):
            return None  # what is known of a machine does not say which accelerator it has
        beside = None if baseline is None else file_digest(baseline)
        code = [versions(LIBRARIES), package_digest(*MEASURING), code_digest(type(evaluator.device).__module__)]
        return digest_of([FORM, what, model.digest, beside, self._task, settings, machine, code, more])

    def _get(self, key: str | None) -> Any:
        content = None if self._store is None or key is None else self._store.get("figures", key)
        return None if content is None else json.loads(content)

    def _put(self, key: str | None, value: dict[str, Any]) -> None:
        if self._store is not None and key is not None:
            self._store.put("figures", key, json.dumps({**value, "at": time.time()}).encode())

    def _dated(self, latency: LatencyResult, at: float) -> LatencyResult:
        """The figure with when it was taken."""
        when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
        said = f"measured {when} in an earlier run, on this machine"
        if latency.device != HOST:
            said = f"measured {when} in an earlier run, on this device"
        if at >= self._since:
            said = f"measured {when}, of the same file"
        return replace(latency, note=f"{latency.note}; {said}" if latency.note else said)


def counted(candidates: Sequence[CandidateResult]) -> dict[str, int]:
    """How many candidates have something from the store, in all and by what it is."""
    by_kind = {kind: sum(kind in c.reused for c in candidates) for kind in (MODEL, LATENCY, QUALITY)}
    return {"candidates": sum(bool(c.reused) for c in candidates), **by_kind}


def in_words(reused: dict[str, int], candidates: int) -> list[str]:
    """The same for the report; nothing where nothing was reused."""
    if not reused["candidates"]:
        return []
    said = f"{reused[MODEL]} of {candidates} models came from the store, where an earlier build keeps them"
    if reused[LATENCY] or reused[QUALITY]:
        said += f"; so did {reused[LATENCY]} times, taken on the same device, and {reused[QUALITY]} scores"
    return [f"{said} (--store none makes everything anew)"]


def _machine(evaluator: Evaluator) -> dict[str, Any] | None:
    """What names the machine that figures are taken on; None where that is not sure."""
    device = evaluator.device
    return _host() if device.scheme == HOST else _described(evaluator)


@functools.cache
def _host() -> dict[str, Any] | None:
    return this_machine()


@functools.lru_cache(maxsize=64)
def _described(evaluator: Evaluator) -> dict[str, Any] | None:
    facts = evaluator.device.environment()
    return machine_of(facts) if facts.get("versions") else None  # without them an update there would not be noticed
