"""The settings of a check: options, and the table [tool.orchestrator.check] of a pyproject.toml."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError, unknown
from orchestrator.values.check import Noisy
from orchestrator.values.units import parse_seconds, parse_share


class UsualDrop(float):
    """The default limit of the loss of quality: points are only comparable if they are shares of the examples."""


USUAL_DROP = UsualDrop(0.005)
TABLE = "[tool.orchestrator.check]"
OFF = "off"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """The options of `orchestrate check`; its help describes each.

    Attributes:
        data: Reference of the data; None for the recipes', else the quality is not judged.
        metric: Name of the metric; None for the recipes', else the task's default.
        target: Profile; None for the recipes', else `host`.
        runtime: Runtime; None for the recipes', else the profile's first.
        threads: Threads of one inference; None for the recipes', else the profile's.
        max_slowdown: Largest growth of time as a fraction; None to skip the criterion.
        max_growth: Largest growth of the file as a fraction; None to skip the criterion.
        max_memory_growth: Largest growth of peak memory as a fraction; None to skip the criterion.
        max_drop: Largest loss of quality in points of the metric (0.005: half a point of accuracy); None to skip it. Default:
            half a point of a rate, and half a per cent of the baseline's value of any other metric.
        budget_s: Seconds for the rounds of timing.
        noisy: Verdict for criteria that noise left undecided.
    """

    data: str | None = None
    metric: str | None = None
    target: str | None = None
    device: str | None = None
    runtime: str | None = None
    threads: int | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    max_slowdown: float | None = 0.05
    max_drop: float | None = USUAL_DROP
    max_growth: float | None = 0.01
    max_memory_growth: float | None = None
    budget_s: float = 120.0
    noisy: Noisy | None = None
    seed: int = 0
    without_plugins: tuple[str, ...] = ()


def limit(value: str | float, what: str, *, share: bool = True) -> float | None:
    """Parse a limit: `5%`, `0.05` or a number as 0.05; `off` as None.

    Args:
        value: The text, or a number.
        what: The option or key, for messages.
        share: True if a 5 without a sign certainly means 5 %; otherwise it may be 5 points of a metric.

    Raises:
        InputError: It cannot be parsed, or would allow a multiple.
    """
    if isinstance(value, str) and value.strip().lower() == OFF:
        return None
    found = parse_share(value, what) if isinstance(value, str) else _number(value, what)
    if share and found >= 1 and not str(value).strip().endswith("%"):
        raise InputError(f'{what} {value} would allow {found:.0%} more: write "{value}%" if that is what you mean')
    return found


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InputError(f'{what} must be a share like "5%" or 0.05, or "{OFF}", but got {value!r}')
    return float(value)


def read_table(start: Path) -> dict[str, Any]:
    """Return the settings of the nearest pyproject.toml upwards: fields of CheckOptions, "baseline" and "candidate".

    Paths are relative to its folder.

    Raises:
        InputError: It is not TOML, or a key is unknown or of the wrong type; one line with the file and the key.
    """
    file = next((folder / "pyproject.toml" for folder in (start, *start.parents) if (folder / "pyproject.toml").is_file()), None)
    if file is None:
        return {}
    try:
        content: Any = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no valid TOML: {error}") from None
    for key in ("tool", "orchestrator", "check"):
        content = content.get(key, {})
        if not isinstance(content, dict):
            raise InputError(f"{file}: {TABLE} must be a table, but '{key}' is {content!r}")
    found = {}
    for key, value in content.items():
        if key not in _KEYS:
            raise InputError(f"{file}, {TABLE}: {unknown('key', key, _KEYS)}")
        name, read = _KEYS[key]
        found[name] = read(value, f"{file}, {TABLE}, {key}", file.parent)
    return found


def _share(value: Any, what: str, folder: Path) -> float | None:
    return limit(value, what)


def _points(value: Any, what: str, folder: Path) -> float | None:
    return limit(value, what, share=False)


def _text(value: Any, what: str, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{what} must be a text, but got {value!r}")
    return value


def _time(value: Any, what: str, folder: Path) -> float:
    return parse_seconds(_text(value, what, folder), what)


def _count(value: Any, what: str, folder: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{what} must be a whole number, 1 or more, but got {value!r}")
    return value


def _noisy(value: Any, what: str, folder: Path) -> str:
    if value not in ("pass", "fail"):
        raise InputError(f'{what} must be "pass" or "fail", but got {value!r}')
    return str(value)


def _path(value: Any, what: str, folder: Path) -> Path:
    return folder / _text(value, what, folder)


def _reference(value: Any, what: str, folder: Path) -> str:
    text = _text(value, what, folder)
    source, colon, name = text.rpartition(":")
    if colon and source.endswith(".py"):
        return f"{folder / source}:{name}"
    return str(folder / text) if text.endswith((".npz", ".toml")) else text


_KEYS: dict[str, tuple[str, Callable[[Any, str, Path], Any]]] = {
    "max_slowdown": ("max_slowdown", _share),
    "max_drop": ("max_drop", _points),
    "max_growth": ("max_growth", _share),
    "max_memory_growth": ("max_memory_growth", _share),
    "budget": ("budget_s", _time),
    "noisy": ("noisy", _noisy),
    "baseline": ("baseline", _path),
    "candidate": ("candidate", _path),
    "data": ("data", _reference),
    "metric": ("metric", _reference),
    "target": ("target", _reference),
    "device": ("device", _text),
    "runtime": ("runtime", _text),
    "threads": ("threads", _count),
}
