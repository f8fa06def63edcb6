"""Discovery of installed plugins: entry points, their distributions, and the orchestrator's version that they need."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.errors import PluginError, unknown
from orchestrator.values.distribution import DISTRIBUTION

GROUP = "orchestrator"


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginInfo:
    """A plugin with its distribution, and the reason why it cannot be used, if it cannot."""

    name: str
    package: str
    version: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPlugin:
    """An installed entry point.

    Attributes:
        entry: None if its name is taken; `info` names the other plugin.
    """

    info: PluginInfo
    entry: importlib.metadata.EntryPoint | None


def installed(*, without: Iterable[str] = (), strict: bool = True) -> list[InstalledPlugin]:
    """Return every entry point of the group but those named, by plugin or by package; the orchestrator's own come first.

    Raises:
        PluginError: a name in `without` is not installed, and `strict`.
    """
    entries = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: (not _own(e), e.name, e.value))
    off = set(without)
    known = {entry.name for entry in entries} | {_package(entry) for entry in entries if not _own(entry)}
    for name in off:
        if strict and name not in known:
            raise PluginError(unknown("plugin", name, known))
    found: list[InstalledPlugin] = []
    for entry in entries:
        package, version = _package(entry), entry.dist.version if entry.dist else "?"
        if entry.name in off or (package in off and not _own(entry)):
            continue
        taken = next((f.info for f in found if f.info.name == entry.name), None)
        if taken is None:
            found.append(InstalledPlugin(info=PluginInfo(name=entry.name, package=package, version=version), entry=entry))
        elif (taken.package, taken.version) != (package, version):  # an editable install beside a wheel is listed twice
            reason = f"its entry point's name '{entry.name}' is taken by {taken.package} {taken.version}"
            info = PluginInfo(name=f"{entry.name} ({package})", package=package, version=version, error=reason)
            found.append(InstalledPlugin(info=info, entry=None))
    return found


def unmet(distribution: importlib.metadata.Distribution | None) -> str | None:
    """Return the version of the orchestrator that a package requires and this one is not; None if it is satisfied.

    It is read off the package's own dependencies (`orchestrator>=2`), which pip checks too, but not with `--no-deps`, nor when
    the orchestrator alone is changed later.
    """
    version = importlib.metadata.version(DISTRIBUTION)
    for line in (distribution.requires if distribution else None) or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            return f"its dependency '{line}' cannot be read"
        if canonicalize_name(requirement.name) != DISTRIBUTION or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            return f"it needs {DISTRIBUTION} {requirement.specifier}, and this is {version}"
    return None


def _own(entry: importlib.metadata.EntryPoint) -> bool:
    return entry.dist is not None and canonicalize_name(entry.dist.name) == DISTRIBUTION


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.name
