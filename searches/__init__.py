"""The ready-made searches, one TOML file each; they enter by the door that everybody else's use."""

from pathlib import Path

from orchestrator.plugin import hookimpl


@hookimpl
def orchestrator_searches() -> list[Path]:
    """The files of this folder."""
    return sorted(Path(__file__).parent.glob("*.toml"))
