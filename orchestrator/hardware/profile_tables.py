"""A profile as plain tables and as a TOML file."""

from typing import Any

import tomli_w
from pydantic import TypeAdapter

from orchestrator.values.profile import HardwareProfile


def as_tables(profile: HardwareProfile) -> dict[str, Any]:
    """Return the profile as TOML and JSON types, without unknown values."""
    found: dict[str, Any] = TypeAdapter(HardwareProfile).dump_python(
        profile, mode="json", exclude_none=True, exclude_defaults=True
    )
    return found


def as_text(profile: HardwareProfile) -> str:
    """Return the profile as the text of its file."""
    return tomli_w.dumps(as_tables(profile))
