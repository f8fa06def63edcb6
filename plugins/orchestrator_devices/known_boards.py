"""Which boards were set up from here: a small file in the user's data folder, for `orchestrate devices list`."""

import json
from pathlib import Path
from typing import Any

import platformdirs

Boards = dict[str, dict[str, Any]]


def path() -> Path:
    """Where it is kept."""
    return platformdirs.user_data_path("orchestrator", appauthor=False) / "boards.json"


def read() -> Boards:
    """`{reference: {"set_up": day, "machine": ..., "packages": [...]}}`; empty where the file is missing or spoilt."""
    try:
        found = json.loads(path().read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): dict(facts) for name, facts in found.items() if isinstance(facts, dict)} if isinstance(found, dict) else {}


def summary(facts: dict[str, Any]) -> str:
    """Return when a board was set up, and with which packages."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(dict(facts.get("versions", {})).items()))
    return f"{facts.get('set_up', '')}: {versions}"


def remember(reference: str, facts: dict[str, Any]) -> None:
    """Note a board, in the place of what was known of it."""
    _write({**read(), reference: facts})


def forget(reference: str) -> None:
    """Note that a board is set up no longer."""
    _write({name: facts for name, facts in read().items() if name != reference})


def _write(boards: Boards) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    new = path().with_suffix(".part")
    new.write_text(json.dumps(boards, indent=1) + "\n")
    new.replace(path())
