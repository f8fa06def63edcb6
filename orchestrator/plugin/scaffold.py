"""Scaffold of `orchestrate plugins new`: a package with a working method, its test and its entry point."""

import importlib.util
import keyword
import re
import sys
from pathlib import Path
from string import Template

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.plugin.discovery import installed
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime_step import PREFIX

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

TEMPLATES = Path(__file__).with_name("package_template")


def write_package(name: str, output: Path | None, version: str) -> list[Path]:
    """Write the package and return its files, in the order in which to read them.

    Args:
        name: Name of the package, its entry point and its method: small letters, digits and hyphens.
        output: New or empty folder; None: `NAME` in the current folder.
        version: Least version of the orchestrator.

    Raises:
        InputError: The name cannot be used, or the folder is not empty.
        EnvironmentFailure: The folder cannot be written.
    """
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise InputError(f"'{name}' cannot name a plugin: use small letters, digits and hyphens, such as my-method")
    if name.startswith(PREFIX):
        raise InputError(f"'{name}' cannot name a plugin: names that begin with '{PREFIX}' are steps that choose a runtime")
    for found in installed():
        if name in (found.info.name, found.info.package):
            raise InputError(
                f"plugin '{found.info.name}' of {found.info.package} {found.info.version} has that name: choose another"
            )
    if name in Registry.discover().methods():
        raise InputError(f"a method is named '{name}' already: choose another")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise InputError(f"a module is named '{module}' already, and one would hide the other: choose another name")
    folder = output if output is not None else Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' is there already: give a new folder with --output")
    title = "".join(part.capitalize() for part in name.split("-"))
    values = {"name": name, "module": module, "title": title, "orchestrator": version}
    files = {
        folder / target: Template((TEMPLATES / f"{template}.template").read_text("utf-8")).substitute(values)
        for template, target in (
            ("README.md", "README.md"),
            ("module.py", f"{module}.py"),
            ("test_module.py", f"test_{module}.py"),
            ("pyproject.toml", "pyproject.toml"),
        )
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"'{folder}' cannot be written: {error.strerror}") from None
    return list(files)
