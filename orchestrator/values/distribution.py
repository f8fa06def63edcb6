"""The distribution's name and how to install it, for messages."""

from importlib.metadata import version

DISTRIBUTION = "model-orchestrator"


def installed_version() -> str:
    """Return the version of the installed distribution."""
    return version(DISTRIBUTION)


def install_command(extra: str) -> str:
    """Return the command that installs one of the distribution's extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
