"""results.json, schema 1: written atomically, validated when read."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import InputError
from orchestrator.values.files import write_atomic
from orchestrator.values.layers import LayerTable
from orchestrator.values.results import RunResult

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

SCHEMA = 1
LAYERS = "layers.json"
"""Name of the table of layers beside each file of the front."""


def render_json(run: RunResult) -> str:
    """Return the text of results.json. NaN and infinity are null where a value may be absent.

    Raises:
        ValueError: A required value is NaN or infinite, or a value has the wrong type.
    """
    from pydantic import ValidationError

    data = plain(dataclasses.replace(run, layers={}))
    del data["layers"]  # stored in their own files
    try:
        _adapter().validate_python(data)
    except ValidationError as error:
        raise ValueError(f"results.json would not be readable: {_first(error)}") from error
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def write_results(run: RunResult, path: Path) -> None:
    """Write `run` to the file `path` atomically.

    Raises:
        ValueError: As `render_json`.
        OSError: As `write_atomic`.
    """
    write_atomic(path, render_json(run))


def read_results(path: Path) -> RunResult:
    """Return the run of a results.json or of a run directory. Unknown keys are ignored.

    Raises:
        InputError: The file is missing, damaged, or of another schema.
    """
    from pydantic import ValidationError

    file = path / "results.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_bytes(), parse_float=_finite, parse_constant=_finite)
    except FileNotFoundError:
        raise InputError(f"there is no {file}; give the folder of a run, with results.json in it") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged, not valid JSON: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise InputError(f"{file} is not the results of a run: it has no 'schema'")
    if data["schema"] != SCHEMA:
        raise InputError(f"{file} has schema {data['schema']!r}; this version reads schema {SCHEMA}")
    try:
        run = _adapter().validate_python(data)
    except ValidationError as error:
        raise InputError(f"{file} is damaged: {_first(error)}") from error
    known = {run.baseline.id, *(candidate.id for candidate in run.candidates)}
    named = [*run.front, *([run.recommended] if run.recommended is not None else [])]
    if missing := [identifier for identifier in named if identifier not in known]:
        raise InputError(f"{file} is damaged: there is no candidate {missing[0]!r}, though the front names it")
    return dataclasses.replace(run, layers=_read_layers(run, file.parent))


def _read_layers(run: RunResult, folder: Path) -> dict[str, LayerTable]:
    """Return the tables beside the files of the front, without those that are missing or damaged."""
    from pydantic import ValidationError

    found = {}
    for identifier in run.front:
        candidate = run.candidate(identifier)
        path = candidate.artifact.path if candidate.artifact else None
        if path is None or (file := folder / path).suffix != ".onnx" or not file.is_relative_to(folder):
            continue
        try:
            found[identifier] = _layers_adapter().validate_json(file.with_name(LAYERS).read_bytes())
        except (OSError, ValidationError):
            continue
    return found


@functools.cache
def _adapter() -> "TypeAdapter[RunResult]":
    from pydantic import TypeAdapter

    return TypeAdapter(RunResult)


@functools.cache
def _layers_adapter() -> "TypeAdapter[LayerTable]":
    from pydantic import TypeAdapter

    return TypeAdapter(LayerTable)


def _first(error: "ValidationError") -> str:
    """Return the first validation error as 'where: what', in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and NumPy scalars as JSON types; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if found.get("energy_mj", 0) is None:
            del found["energy_mj"]  # absent without an energy counter
        if found.get("machines", True) == {}:
            del found["machines"]  # only shared searches have it
        for key in ("finished_s", "phrase"):
            if found.get(key, 0) in (None, ""):
                del found[key]
        return found
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if callable(item := getattr(value, "item", None)):  # a NumPy scalar, without importing numpy
        return plain(item())
    return str(value)
