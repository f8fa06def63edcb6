"""`orchestrate plugins check`: the conformance kit over all that a package brings, installed or in a folder."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from orchestrator.errors import EnvironmentFailure, InputError, unknown
from orchestrator.plugin.discovery import GROUP

LISTING = """
import json, sys
from orchestrator.plugin.registry import Registry
registry = Registry.discover()
json.dump([[p.name, p.package, p.version, p.error] for p in registry.plugins], open(sys.argv[1], "w"))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConformanceCheck:
    """One check of one contribution.

    Attributes:
        of: "method shrink".
        check: What is checked, in words; the network in brackets.
        problem: What is wrong, or why it was skipped.
        fix: How to fix it, where the kit knows.
    """

    of: str
    check: str
    outcome: str
    problem: str = ""
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageCheck:
    """A package with its checks."""

    package: str
    version: str
    plugins: tuple[str, ...]
    checks: tuple[ConformanceCheck, ...]

    def of(self, outcome: str) -> list[ConformanceCheck]:
        """Return the checks with that outcome: "passed", "failed" or "skipped"."""
        return [check for check in self.checks if check.outcome == outcome]


def check_package(reference: str, *, device: str | None = None, tell: Callable[[str], None] = lambda _: None) -> PackageCheck:
    """Run the kit.

    Args:
        reference: An installed distribution's or module's name, or a folder with a pyproject.toml, whose own tests run too.
        device: What devices of the package are attached by; None: their schemes.
        tell: Told what is being done.

    Raises:
        InputError: there is no such package, it brings no plugin, or pytest is not installed.
        EnvironmentFailure: it cannot be installed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise InputError("the conformance kit needs pytest: pip install pytest")
    folder = Path(reference)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if (folder / "pyproject.toml").is_file():
            tell(f"installing {reference} into a temporary folder")
            install(folder, place / "packages")
            name, version = _brought(place / "packages", reference)
            tests = own_tests(folder)
        elif folder.is_dir() and os.sep in reference:
            raise InputError(f"'{reference}' has no pyproject.toml")
        else:
            (name, version), tests = _installed(reference), []
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # options for other plugins
        environment = {**own, "PYTHONPATH": os.pathsep.join([str(place / "packages"), os.environ.get("PYTHONPATH", "")])}
        listed = _run([sys.executable, "-c", LISTING, str(place / "listed.json")], environment, place / "listed.json", place)
        rows = [row for row in listed if canonicalize_name(row[1]) == canonicalize_name(name)]
        broken = [
            ConformanceCheck(of=f"plugin {row[0]}", check="can be used", outcome="failed", problem=row[3])
            for row in rows
            if row[3]
        ]
        usable = [row[0] for row in rows if not row[3]]
        checks: list[ConformanceCheck] = []
        if usable:
            tell(f"checking {', '.join(usable)}; this takes a minute or two")
            command = [sys.executable, "-m", "orchestrator.plugin.testing.runner", str(place / "found.json"), device or ""]
            found = _run([*command, *usable, "--", *map(str, tests)], environment, place / "found.json", place)
            checks = [ConformanceCheck(**entry) for entry in found["found"]]
            checks += _incomplete(found["code"], checks, found["said"])
    return PackageCheck(package=name, version=version, plugins=tuple(row[0] for row in rows), checks=(*broken, *checks))


def _incomplete(code: int, checks: list[ConformanceCheck], said: str) -> list[ConformanceCheck]:
    """Return a failure if the checks did not finish, or none of them checked anything."""
    if code not in (0, 1):
        problem = f"pytest ended with {code}: {said or 'it said nothing'}"
        return [ConformanceCheck(of="the checks", check="are run to their end", outcome="failed", problem=problem)]
    if not any(check.outcome in ("passed", "failed") for check in checks):
        reasons = "; ".join(dict.fromkeys(check.problem for check in checks)) or "there was none"
        problem = f"every check was skipped: {reasons}"
        return [ConformanceCheck(of="the checks", check="look at something", outcome="failed", problem=problem)]
    return []


def install(folder: Path, target: Path) -> None:
    """Install a package from its folder into another, alone; nothing is fetched where the build backend is here.

    Raises:
        EnvironmentFailure: pip cannot; its last line.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(target)]
    with _copied(folder) as source:  # building writes beside the sources
        for isolation in (["--no-build-isolation"], []):
            done = subprocess.run([*pip, *isolation, str(source)], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
    said = next((line for line in reversed(lines) if "rror" in line), lines[-1])
    raise EnvironmentFailure(f"'{folder}' cannot be installed: {said.strip()}")


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    import shutil

    ignore = shutil.ignore_patterns("build", "*.egg-info", ".git", "__pycache__", ".venv", "venv", "runs")
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(shutil.copytree(folder, Path(scratch) / folder.resolve().name, ignore=ignore))


def own_tests(folder: Path) -> list[Path]:
    """Return the test files of a package's folder."""
    tests = folder / "tests"
    return sorted(path.resolve() for place in (folder, tests) for path in place.glob("test_*.py"))


def _brought(target: Path, reference: str) -> tuple[str, str]:
    for distribution in importlib.metadata.distributions(path=[str(target)]):
        if any(entry.group == GROUP for entry in distribution.entry_points):
            return distribution.name, distribution.version
    raise InputError(f"'{reference}' brings no plugin: its pyproject.toml needs a table [project.entry-points.{GROUP}]")


def _installed(reference: str) -> tuple[str, str]:
    """Return the distribution of that name, or the one whose plugin or module has it."""
    known: dict[str, importlib.metadata.Distribution] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is not None:
            for name in (entry.dist.name, entry.name, entry.value.partition(":")[0].partition(".")[0]):
                known.setdefault(canonicalize_name(name), entry.dist)
    if (found := known.get(canonicalize_name(reference))) is not None:
        return found.name, found.version
    try:
        importlib.metadata.distribution(reference)
    except importlib.metadata.PackageNotFoundError:
        names = {dist.name for dist in known.values()}
        raise InputError(f"{unknown('package', reference, names)}; or give a folder with a pyproject.toml") from None
    raise InputError(f"package '{reference}' brings no plugin: it has no entry point in the group '{GROUP}'")


def _run(command: list[str], environment: dict[str, str], output: Path, folder: Path) -> Any:
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if not output.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"it ended with {done.returncode}"]
        raise EnvironmentFailure(f"the checks did not come to their end: {lines[-1]}")
    return json.loads(output.read_text("utf-8"))
