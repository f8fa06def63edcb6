"""Terminal and JSON output of `orchestrate measure` and `compare`."""

import json
from typing import Any

from orchestrator.report import formatting
from orchestrator.report.results import plain
from orchestrator.values.measure import Comparison, ModelMeasurement


def print_json(found: dict[str, Any]) -> str:
    """Return one JSON object; values that are not finite are null."""
    return json.dumps(plain(found), indent=2, allow_nan=False)


def measured_lines(found: ModelMeasurement) -> list[str]:
    """Return one model's values as lines for a terminal."""
    latency = found.latency
    conditions = latency.conditions or {}
    if latency.evidence == "simulated":
        return _simulated_lines(found)
    lines = [
        f"{found.model} with {found.environment['runtime_version']} of {latency.runtime}, {_threads(latency.threads)}, "
        f"on {latency.device} ({found.environment.get('cpu', 'unknown processor')})",
        f"latency   {_figure(found)}, {latency.evidence}",
        f"tail      p90 {latency.p90_ms:.4g} ms, p99 {latency.p99_ms:.4g} ms",
        f"samples   {latency.samples}, fresh processes: {conditions.get('rounds')}, far outliers (kept): "
        f"{conditions.get('outliers')}; {_ended(conditions)}",
        f"memory    {formatting.size(found.peak_memory_bytes)} at its peak, above an empty process",
        f"file      {found.size_bytes / 1e3:.4g} kB, {found.compressed_bytes / 1e3:.4g} kB compressed",
    ]
    lines += _graph(found)
    if found.energy_mj is not None:
        lines.append(f"energy    {formatting.energy(found.energy_mj)} an inference (processor packages)")
    lines.append(f"machine   {_machine(conditions, found.environment)}")
    lines += _warnings(found)
    return lines


def compared_lines(found: Comparison) -> list[str]:
    """Return a comparison as lines for a terminal, the verdict last."""
    width = max(len(found.a.model), len(found.b.model))
    lines = [f"{name}  {each.model:<{width}}  {_figure(each)}" for name, each in (("A", found.a), ("B", found.b))]
    if found.basis != "simulated":
        conditions = found.b.latency.conditions or {}
        lines.append(f"   {_machine(conditions, found.b.environment)}")
    lines += _warnings(found.b)
    return [*lines, f"{found.verdict}: {found.reason}"]


def _simulated_lines(found: ModelMeasurement) -> list[str]:
    latency, conditions = found.latency, found.latency.conditions or {}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(conditions.get("versions", {}).items()))
    counts = conditions.get("counts", {})
    return [
        f"{found.model} with {latency.runtime}, {_threads(latency.threads)}, on {latency.device} for {conditions.get('profile')}",
        f"latency   {latency.median_ms:.4g} ms ({latency.low_ms:.4g} to {latency.high_ms:.4g}), {latency.evidence}",
        f"executed  {counts.get('instructions', 0) / 1e6:.4g} M instructions, the same on any machine",
        f"versions  {versions}",
        f"file      {found.size_bytes / 1e3:.4g} kB, {found.compressed_bytes / 1e3:.4g} kB compressed",
        *_graph(found),
        *_warnings(found),
    ]


def _graph(found: ModelMeasurement) -> list[str]:
    if found.macs is None or found.parameters is None:
        return []
    return [f"graph     {found.macs / 1e6:.4g} M multiply-accumulates, {found.parameters:,} parameters"]


def _figure(found: ModelMeasurement) -> str:
    latency = found.latency
    cpu = "" if latency.cpu_median_ms is None else f", CPU time {latency.cpu_median_ms:.4g} ms"
    return f"{latency.median_ms:.4g} ms ({latency.low_ms:.4g} to {latency.high_ms:.4g}){cpu}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _ended(conditions: dict[str, Any]) -> str:
    precision = f"the interval is +-{100 * conditions.get('precision', 0.0):.2g} %"
    if conditions.get("ended_by") == "max-seconds":
        return f"{precision}, which is wider than asked for, but time was up"
    return precision


def _machine(conditions: dict[str, Any], environment: dict[str, Any]) -> str:
    governor = [f"governor {environment['governor']}"] if "governor" in environment else []
    return "; ".join([*formatting.condition_words(conditions), *governor]) or "tells nothing of itself"


def _warnings(found: ModelMeasurement) -> list[str]:
    lines = []
    if found.latency.disturbed:
        lines.append(f"disturbed {found.latency.disturbed}: the values are unreliable")
    if not (found.latency.conditions or {}).get("stationary", True):
        lines.append("unsteady  the times were still changing when measuring began")
    if found.latency.note:
        lines.append(f"note      {found.latency.note}")
    return lines
