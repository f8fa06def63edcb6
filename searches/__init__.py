"""The ready-made searches, one TOML file each."""

from pathlib import Path

from orchestrator.plugin import hookimpl


@hookimpl
def orchestrator_searches() -> list[Path]:
    """Return the files of this folder."""
    return sorted(Path(__file__).parent.glob("*.toml"))
