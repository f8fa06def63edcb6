"""The boards that were set up from here: a file in the user's data folder."""

import json
from pathlib import Path
from typing import Any

import platformdirs

from orchestrator.values.files import write_atomic

Boards = dict[str, dict[str, Any]]


def path() -> Path:
    """Return the path of the file."""
    return platformdirs.user_data_path("orchestrator", appauthor=False) / "boards.json"


def read() -> Boards:
    """Return `{reference: {"set_up": day, "machine": ..., "versions": {...}}}`; empty if the file is missing or damaged."""
    try:
        boards = json.loads(path().read_text())
    except (OSError, ValueError):
        return {}
    return {name: facts for name, facts in boards.items() if isinstance(facts, dict)} if isinstance(boards, dict) else {}


def summary(facts: dict[str, Any]) -> str:
    """Return when a board was set up, and with which packages."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(dict(facts.get("versions", {})).items()))
    return f"{facts.get('set_up', '')}: {versions}"


def remember(reference: str, facts: dict[str, Any]) -> None:
    """Record a board, in place of its earlier facts."""
    _write({**read(), reference: facts})


def forget(reference: str) -> None:
    """Delete the record of a board."""
    _write({name: facts for name, facts in read().items() if name != reference})


def _write(boards: Boards) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path(), json.dumps(boards, indent=1) + "\n")
