"""Runs `orchestrate` with replaced values: `launcher.py '{"package.module:NAME": VALUE}' COMMAND...`.

A VALUE that is an object replaces fields of the dataclass instance of that name. A name that does not exist ends the process with
an error: a replacement without effect would let a test pass for no reason.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def replace_values(patches: Mapping[str, Any]) -> None:
    """Replace module attributes.

    Raises:
        AttributeError: A module has no such attribute.
        TypeError: The dataclass has no such field, or the new value is of another type.
    """
    for name, value in patches.items():
        setattr(*replacement(name, value))


def replacement(name: str, value: Any) -> tuple[ModuleType, str, Any]:
    """Return the module, the attribute and its new value. Raises as `replace_values`."""
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    present = getattr(module, attribute)
    replaced = dataclasses.replace(present, **value) if isinstance(value, dict) else value
    if not isinstance(replaced, type(present)):
        raise TypeError(f"{name} is {present!r}, and cannot become {replaced!r}")
    return module, attribute, replaced


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # as with `python -m orchestrator`
    replace_values(json.loads(sys.argv.pop(1)))
    from orchestrator.cli import main

    main()
