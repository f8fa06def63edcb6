"""What a check allows: options, and the table [tool.orchestrator.check] of a pyproject.toml."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError, unknown
from orchestrator.values.check import Noisy
from orchestrator.values.units import parse_seconds, parse_share


class UsualDrop(float):
    """The loss that is allowed where nobody said one: points have no common scale but where they are shares of the examples."""


USUAL_DROP = UsualDrop(0.005)
TABLE = "[tool.orchestrator.check]"
OFF = "off"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """`orchestrate check` as the user said it. See the command's help for each.

    Attributes:
        data, metric, target, runtime, threads: None: what the sides' recipes say; else no data, the task's usual metric, `host`,
            and the profile's own runtime and threads.
        max_slowdown, max_growth, max_memory_growth: Largest growth of time, file and peak memory, as a share; None: not judged.
        max_drop: Largest loss of quality, in points of the metric (0.005: half a point of accuracy); None: not judged. Where it
            is not said: half a point of a rate, and half a per cent of the baseline's value of any other metric.
        budget_s: Time for the rounds of timing.
        noisy: What is made of what noise left undecided.
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
    """`5%`, `0.05` or a number as 0.05; `off` as None.

    Args:
        share: Whether 5 without a sign is surely meant as 5 %; else it may be 5 points of a metric.

    Raises:
        InputError: it cannot be read, or would allow several times as much.
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
    """What the nearest pyproject.toml, from `start` upwards, says of checks: fields of CheckOptions, "baseline" and "candidate".

    Files that it names are meant from its own folder.

    Raises:
        InputError: it is no TOML, or a key is unknown or of the wrong type; one line with the file and the key.
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
