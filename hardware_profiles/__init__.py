"""The built-in hardware profiles, one TOML file a machine; they enter by the door that everybody else's use."""

from pathlib import Path

from orchestrator.plugin import hookimpl


@hookimpl
def orchestrator_hardware_profiles() -> list[Path]:
    """The files of this folder."""
    return sorted(Path(__file__).parent.glob("*.toml"))
