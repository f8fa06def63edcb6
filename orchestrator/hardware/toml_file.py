"""Reading a TOML file into a frozen dataclass, with every problem as one line that names the place."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import ProfileError, unknown

T = TypeVar("T")
Location = tuple[str | int, ...]

_UNKNOWN_KEY = "unexpected_keyword_argument"

_UNITS = {"hz": "hertz", "bytes": "bytes", "bytes_per_second": "bytes a second"}
_OTHER_UNIT = re.compile(r"_(?:[kmg]?hz|[kmg]i?b|[kmg]i?bytes?|[kmg]i?b(?:ps|_s|_per_s(?:ec(?:ond)?)?))$")

_HEADER = re.compile(r"^\s*(\[\[?)\s*([\w.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([\w\-\"'.]+)\s*=")


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """Return the file's tables and its text.

    Raises:
        ProfileError: It cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise ProfileError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path}: not valid TOML: {error}") from None


def validated(kind: type[T], data: Mapping[str, Any], text: str, path: Path) -> T:
    """Return the tables as an instance of the dataclass `kind`, each value in exactly its declared type.

    Raises:
        ProfileError: The first violation of the schema; unknown keys first, because a misspelt key is a missing one too.
    """
    found = _parsed(kind, data)
    if isinstance(found, ValidationError):
        fail(path, text, *_problems(kind, found)[0])
    return found


def schema_problems(kind: type, data: Mapping[str, Any]) -> list[tuple[Location, str]]:
    """Return all violations of the schema, unknown keys first; empty if `validated` would succeed."""
    found = _parsed(kind, data)
    return _problems(kind, found) if isinstance(found, ValidationError) else []


def _parsed(kind: type[T], data: Mapping[str, Any]) -> T | ValidationError:
    try:
        # Through JSON, because strict validation accepts a JSON array for a tuple, but not a Python list.
        return TypeAdapter(kind).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        return error


def _problems(kind: type, error: ValidationError) -> list[tuple[Location, str]]:
    every = error.errors(include_url=False)
    # A list of invalid items is also reported as too short; the items' problems are sufficient.
    inner = {problem["loc"][:k] for problem in every for k in range(1, len(problem["loc"]))}
    found = [problem for problem in every if problem["type"] != "too_short" or problem["loc"] not in inner]
    found.sort(key=lambda problem: problem["type"] != _UNKNOWN_KEY)
    return [(problem["loc"], _message(kind, problem)) for problem in found]


def fail(path: Path, text: str, location: Location, message: str) -> NoReturn:
    """Raise a ProfileError of one line: file, line, key, problem."""
    raise ProfileError(told(path, text, location, message))


def told(path: Path, text: str, location: Location, message: str) -> str:
    """Return one line: file, line, key, problem."""
    line = line_of(text, location)
    where = f"{path}:{line}" if line else f"{path}"
    key = _dotted(location)
    return f"{where}: {key}: {message}" if key else f"{where}: {message}"


def _message(kind: type, problem: Any) -> str:
    location: Location = problem["loc"]
    if problem["type"] == _UNKNOWN_KEY:
        known = _keys_at(kind, location[:-1])
        return _missing_unit(str(location[-1]), known) or unknown("key", str(location[-1]), known)
    if problem["type"] == "missing":
        if location[-1] == "source":
            return 'these values have no source; add source = "NAME" and describe it under [sources]'
        return f"the key '{location[-1]}' is missing; add it"
    law = problem["msg"].replace("Input should ", "must ", 1)
    value = problem["input"]
    got = f"{value!r:.60}" if not isinstance(value, dict | list) else f"a {'table' if isinstance(value, dict) else 'list'}"
    whole = isinstance(value, float) and value.is_integer() and problem["type"] == "int_type"
    near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", law), n=1)
    hint = f"; write {int(value)}" if whole else f"; did you mean '{near[0]}'?" if near else ""
    return f"{law}, but got {got}{hint}"


def _missing_unit(key: str, known: Iterable[str]) -> str | None:
    """Return the hint for a key whose unit is missing or wrong: 'clock' or 'clock_ghz' for 'clock_hz'."""
    stem = _OTHER_UNIT.sub("", key.lower())
    for unit, word in _UNITS.items():
        meant = f"{stem}_{unit}"
        if meant in known:
            wrong = "has no unit" if stem == key.lower() else "is in another unit"
            return f"the key '{key}' {wrong}; write {meant}, in {word}"
    return None


def _keys_at(kind: Any, location: Location) -> list[str]:
    """Return the keys of the schema at a place, by walking its types."""
    for step in location:
        if isinstance(step, str):
            kind = get_type_hints(kind).get(step)
        while not is_dataclass(kind) and get_args(kind):
            kind = next((a for a in get_args(kind) if is_dataclass(a)), get_args(kind)[0])
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def _dotted(location: Location) -> str:
    steps = [f"[{s}]" if isinstance(s, int) else f".{s}" for s in location if s != "[key]"]
    return "".join(steps).removeprefix(".")


def line_of(text: str, location: Location) -> int | None:
    """Return the line of a key, or of the nearest table around it: tomllib keeps no positions, so headers are parsed again."""
    lines: dict[Location, int] = {}
    table: Location = ()
    counts: dict[Location, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = ()
            names = [part.strip().strip("\"'") for part in header[2].split(".")]
            for i, name in enumerate(names):
                table = (*table, name)
                if header[1] == "[[" and i == len(names) - 1:
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    table = (*table, counts[table])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *(part.strip("\"'") for part in key[1].split("."))), number)
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location)
