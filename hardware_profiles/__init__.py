"""The built-in hardware profiles, one TOML file a machine."""

from pathlib import Path

from orchestrator.plugin import hookimpl


@hookimpl
def orchestrator_hardware_profiles() -> list[Path]:
    """Return the files of this folder."""
    return sorted(Path(__file__).parent.glob("*.toml"))
