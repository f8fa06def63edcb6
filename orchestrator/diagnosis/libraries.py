"""Findings on required libraries, which are imported, and on those of the extras."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.values.distribution import DISTRIBUTION, install_command
from orchestrator.values.finding import Finding, FindingState

MODULES = {"scikit-learn": "sklearn"}  # where the name differs by more than a hyphen
INSTEAD = {"onnxruntime": "onnxruntime-gpu"}  # the same modules under another name
OF_DEVELOPERS = ("dev", "docs")
IMPORT_S = 300.0
MARK = "imported "
# In a process of its own: a damaged library may raise, exit, hang or crash.
CHILD = f"""
import importlib, json, sys
for name in sys.argv[1:]:
    error = None
    try:
        importlib.import_module(name)
    except BaseException as raised:
        error = f"{{type(raised).__name__}}: {{raised}}"
    print("\\n{MARK}" + json.dumps([name, error]), flush=True)
"""


def program() -> Iterator[Finding]:
    """Yield the versions of the orchestrator and of Python."""
    version = importlib.metadata.version(DISTRIBUTION)
    yield Finding(section="libraries", name=DISTRIBUTION, state="ok", text=version)
    text = f"{platform.python_version()} ({sys.executable})"
    yield Finding(section="libraries", name="python", state="ok", text=text)


def required() -> Iterator[Finding]:
    """Examine every required library: its version, and whether it can be imported."""
    needed = [requirement for requirement in _requirements() if _applies(requirement, "")]
    there = [requirement.name for requirement in needed if _version(requirement.name) is not None]
    errors = imported([_module(name) for name in there])
    for requirement in needed:
        version = _version(requirement.name)
        wish = f"{requirement.name}{requirement.specifier}"
        error = errors.get(_module(requirement.name))
        if version is None:
            yield _library(requirement, "missing", "is not installed", f"pip install '{wish}'")
        elif error is not None:
            text = f"{version} cannot be imported: {error}"
            yield _library(requirement, "broken", text, f"pip install --force-reinstall --no-deps '{wish}'")
        elif not requirement.specifier.contains(version, prereleases=True):
            text = f"{version}, but {requirement.specifier} is required"
            yield _library(requirement, "broken", text, f"pip install '{wish}'")
        else:
            yield _library(requirement, "ok", version, "")


def extras() -> Iterator[Finding]:
    """Examine the packages of every extra."""
    for extra in importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ():
        if extra in OF_DEVELOPERS:
            continue
        members = [r for r in _requirements() if not _applies(r, "") and _applies(r, extra)]
        absent = [r.name for r in members if _version(r.name) is None]
        if absent:
            text, fix = f"{', '.join(absent)} not installed", install_command(extra)
            yield Finding(section="extras", name=extra, state="missing", text=text, fix=fix)
        else:
            text = ", ".join(f"{r.name} {_version(r.name)}" for r in members)
            yield Finding(section="extras", name=extra, state="ok", text=text)


def imported(modules: Sequence[str]) -> dict[str, str | None]:
    """Import modules in a fresh process.

    Returns:
        `{module: reason why it cannot be imported}`, None if it can.
    """
    errors: dict[str, str | None] = {}
    while rest := [name for name in modules if name not in errors]:
        command = [sys.executable, "-P", "-c", CHILD, *rest]
        ending = ""
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=IMPORT_S, check=False)
            out = done.stdout
            if done.returncode:
                ending = f"the process ended with {done.returncode}"
        except subprocess.TimeoutExpired as late:
            out, ending = late.stdout or b"", f"not done after {IMPORT_S:.0f} s"
        for line in out.decode("utf-8", "replace").splitlines():
            if line.startswith(MARK):
                name, error = json.loads(line.removeprefix(MARK))
                errors[name] = error and " ".join(error.split())[:300]
        under_way = next((name for name in rest if name not in errors), None)
        if under_way is not None:
            errors[under_way] = ending or "the process ended early"
    return errors


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _library(requirement: Requirement, state: FindingState, text: str, fix: str) -> Finding:
    return Finding(section="libraries", name=requirement.name, state=state, text=text, fix=fix, needed=True)


def _module(name: str) -> str:
    return MODULES.get(canonicalize_name(name), name.replace("-", "_"))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _version(INSTEAD[name]) if name in INSTEAD else None
