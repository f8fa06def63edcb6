"""Formatting of values and recipes: significant digits, units, and text that is safe for pages and terminals."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.values.results import Difference, QualityResult, StepResult

# Metrics that are shares of the examples, shown in per cent; all others are shown as plain numbers.
RATES = frozenset({"accuracy", "agreement", "balanced-accuracy", "error-rate", "precision", "recall", "top-1", "top-5"})
EVIDENCE = {
    "measured-on-target": "measured",
    "simulated": "simulated",
    "estimated": "estimated",
    "measured-on-host": "measured",
}
NONE = "–"  # noqa: RUF001

# Control characters (a terminal's escape codes among them) and the marks that turn the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """Return text without control characters, direction marks and lone surrogates; line breaks are kept."""
    joined = str(text).replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _UNSAFE.sub("", joined)


def line(text: object, limit: int = 300) -> str:
    """Return `clean` text as one line of at most `limit` characters."""
    words = " ".join(clean(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def decimals(value: float, digits: int = 3) -> int:
    """Return the number of decimals that show `value` with that many significant digits."""
    return 0 if value == 0 else min(8, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def number(value: float, digits: int = 3) -> str:
    """Format a number with that many significant digits: 0.631, 12.4, 1,240."""
    return f"{value:,.{decimals(value, digits)}f}"


def milliseconds(value: float | None) -> str:
    """Format a latency: 0.631 ms."""
    return NONE if value is None else f"{number(value)} ms"


def span(low: float, high: float, like: float) -> str:
    """Format an interval with as many decimals as its central value: [0.58, 0.70]."""
    places = decimals(like)
    return f"[{low:,.{places}f}, {high:,.{places}f}]"


def size(value: int | None) -> str:
    """Format a size in bytes in decimal units, as limits are given: 812 bytes, 81.3 kB, 1.24 MB."""
    return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), " bytes")


def count(value: int | None) -> str:
    """Format a count of operations or parameters: 812, 81.3 k, 1.24 M."""
    return _scaled(value, (("G", 1e9), ("M", 1e6), ("k", 1e3)), "")


def _scaled(value: int | None, units: Sequence[tuple[str, float]], rest: str) -> str:
    if value is None:
        return NONE
    for unit, factor in units:
        if abs(value) >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{value}{rest}"


def is_rate(metric: str) -> bool:
    """Return True if the metric is a share of the examples."""
    return metric.lower().replace("_", "-") in RATES


def quality(metric: str, value: float, examples: int = 0) -> str:
    """Format a value of the metric: 97.8 % for a rate, 0.9931 for another."""
    return f"{value * 100:.{_rate_places(examples)}f} %" if is_rate(metric) else number(value, 4)


def quality_span(metric: str, figure: QualityResult) -> str:
    """Format the interval of a quality: [96.9, 98.6], in per cent for a rate."""
    if is_rate(metric):
        places = _rate_places(figure.examples)
        return f"[{figure.low * 100:.{places}f}, {figure.high * 100:.{places}f}]"
    places = decimals(figure.value, 4)
    return f"[{figure.low:,.{places}f}, {figure.high:,.{places}f}]"


def difference(metric: str, figure: Difference, examples: int = 0) -> str:
    """Format candidate minus baseline: -0.3 points for a rate, -0.0012 for another."""
    return f"{_signed(metric, figure.value, examples)} points" if is_rate(metric) else _signed(metric, figure.value)


def difference_span(metric: str, figure: Difference, examples: int = 0) -> str:
    """Format the interval of a difference: [-0.9, +0.3]."""
    return f"[{_signed(metric, figure.low, examples)}, {_signed(metric, figure.high, examples)}]"


def ratio_span(figure: Difference) -> str:
    """Format the interval of a ratio of times: [0.47, 0.50]."""
    return f"[{figure.low:.2f}, {figure.high:.2f}]"


def _rate_places(examples: int) -> int:
    """Return the number of decimals of a per cent value that the number of examples supports."""
    return 2 if examples > 5000 else 1


def _signed(metric: str, value: float, examples: int = 0) -> str:
    text = f"{value * 100:+.{_rate_places(examples)}f}" if is_rate(metric) else f"{value:+.4f}"
    return re.sub(r"^[+-](?=0(\.0*)?$)", "±", text).replace("-", "−")  # noqa: RUF001


def seconds(value: float) -> str:
    """Format a duration: 0.4 s, 42 s, 3 min 20 s, 1 h 5 min."""
    if value < 60:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def step_words(step: StepResult) -> str:
    """Format a step: static-int8 (scheme u8s8)."""
    parameters = ", ".join(f"{line(k).replace('_', ' ')} {value_words(v)}" for k, v in step.parameters.items())
    return f"{line(step.method)} ({parameters})" if parameters else line(step.method)


def recipe_words(recipe: Sequence[StepResult], *, parameters: bool = True) -> str:
    """Format a recipe: channel-pruning (ratio 0.3) → static-int8 (scheme u8s8)."""
    if not recipe:
        return "the original"
    return " → ".join(step_words(step) if parameters else line(step.method) for step in recipe)


def sentence(recipe: Sequence[StepResult]) -> str:
    """Join the methods' phrases of a recipe: channels -35 % by Taylor importance; 6 epochs of recovery; INT8 static."""
    return "; ".join(line(step.phrase) or step_words(step) for step in recipe) or "the original, unchanged"


def value_words(value: Any) -> str:
    """Format the value of a parameter or setting."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(value_words(entry) for entry in value)
    return line(value)


def limit_words(name: str, value: float, metric: str) -> str:
    """Format a limit, given its name in results.json: 'latency at most 20 ms'."""
    match name:
        case "max_latency_ms":
            return f"latency at most {value:g} ms"
        case "max_size_bytes":
            return f"file at most {size(int(value))}"
        case "max_memory_bytes":
            return f"memory at most {size(int(value))}"
        case "max_drop":
            amount = f"{value * 100:g} point{'' if value == 0.01 else 's'}" if is_rate(metric) else f"{value:g}"
            return f"{line(metric)} drops by at most {amount}"
        case "min_quality":
            return f"{line(metric)} at least {f'{value * 100:g} %' if is_rate(metric) else f'{value:g}'}"
    return f"{line(name).replace('_', ' ')} {value:g}"


def energy(millijoules: float | None) -> str:
    """Format the energy of one inference: '1.25 mJ'."""
    return NONE if millijoules is None else f"{millijoules:.3g} mJ"


def condition_words(conditions: Mapping[str, Any] | None) -> list[str]:
    """Return the known conditions of a latency: the state of the machine, or the executed instructions."""
    found = conditions or {}
    parts = []
    if executed := found.get("counts", {}).get("instructions"):
        parts.append(f"{count(executed)} instructions executed")
    if cores := found.get("on_cores"):
        parts.append(f"on core{'' if len(cores) == 1 else 's'} {', '.join(str(core) for core in cores)}")
    if (other := found.get("other_work_cores")) is not None:
        parts.append(f"other work kept {other:.2g} cores busy")
    if clock := found.get("clock_mhz"):
        parts.append(f"{clock[0]:.0f} to {clock[1]:.0f} MHz")
    if (heat := found.get("temperature_c")) is not None:
        parts.append(f"{heat:.0f} °C")
    if found.get("throttled"):
        parts.append("throttled")
    return parts
