"""A profile as plain tables and as a TOML file that loads again."""

from typing import Any

import tomli_w
from pydantic import TypeAdapter

from orchestrator.values.profile import HardwareProfile


def as_tables(profile: HardwareProfile) -> dict[str, Any]:
    """The profile as TOML and JSON know it: tables, lists, strings and numbers; what is not known is left out."""
    found: dict[str, Any] = TypeAdapter(HardwareProfile).dump_python(
        profile, mode="json", exclude_none=True, exclude_defaults=True
    )
    return found


def as_text(profile: HardwareProfile) -> str:
    """The profile as the text of its file."""
    return tomli_w.dumps(as_tables(profile))
