"""Digests of what results depend on: the task, the code, the versions, the arithmetic of this machine."""

import functools
import hashlib
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.devices.agent import facts
from orchestrator.values.distribution import DISTRIBUTION

FORM = 1
"""To be raised when the same key would mean something else."""
LIBRARIES = (DISTRIBUTION, "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "torch-pruning", "numpy", "scipy")
MOST_FILES = 2000  # of a package whose content is read; a larger one is known by its version
STEADY = (
    *("cpu", "machine", "system", "python", "cores", "memory_bytes", "governor", "max_clock_mhz"),
    *("board", "host", "versions"),
)
PLUGINS = "orchestrator"  # the group of entry points


def digest_of(value: Any) -> str:
    """SHA-256 (hexadecimal) of a value's canonical JSON.

    Raises:
        TypeError: JSON cannot hold it.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Python's and the installed distributions' versions; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 of the source of the package that brings an imported module: installed for editing, it changes without its version.

    Args:
        module: Its dotted name. A file that belongs to no package stands for itself.
    """
    return _tree_digest(_home(module))


def package_digest(*names: str) -> str:
    """SHA-256 of the source of packages of the orchestrator itself: "building" with all that lies below it."""
    root = Path(__file__).parents[1]
    return digest_of([_tree_digest(root / name) for name in names])


@functools.cache
def needs_of(package: str) -> dict[str, str]:
    """Return the versions of a plugin's dependencies; empty if no distribution provides the package."""
    entry = next(
        (e for e in importlib.metadata.entry_points(group=PLUGINS) if e.value.partition(":")[0].partition(".")[0] == package),
        None,
    )
    named = entry.dist.requires or [] if entry is not None and entry.dist is not None else []
    names = [match[0] for text in named if "extra ==" not in text and (match := re.match(r"[A-Za-z0-9._-]+", text))]
    return versions(names)


def sources_digest(reference: str | None, beside: Iterable[Path] = ()) -> Any:
    """Return a digest of a user's reference (`file.py:function`, `package.module:function`, a name, a file) for keys.

    Args:
        reference: Reference as given; None stands for itself.
        beside: Files of the user's that theirs imported.
    """
    if reference is None:
        return None
    source, colon, name = reference.rpartition(":")
    if not colon:
        path = Path(reference)
        return file_digest(path) if path.is_file() else reference
    if source.endswith(".py"):
        return [name, file_digest(Path(source)), sorted((path.name, file_digest(path)) for path in beside)]
    return [source, name, code_digest(source)]


def arithmetic() -> dict[str, Any]:
    """Return the properties of this machine that change a training's numbers: instructions, device, mixed precision."""
    import torch

    from orchestrator.building.training import autocast, device

    place = device()
    precision = autocast(place)
    return {
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "autocast": str(getattr(precision, "fast_dtype", "float32")),
    }


def machine_of(environment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the constant part of a device's description, which identifies the machine; None if it is incomplete.

    Figures are compared only within one machine, with its kernel and clock as they were.
    """
    if not all(environment.get(name) for name in ("cpu", "system", "cores", "memory_bytes")):
        return None
    return {name: environment[name] for name in STEADY if name in environment}


def this_machine() -> dict[str, Any] | None:
    """Return the description and name of this host; None if the description is incomplete."""
    found = machine_of(facts())
    return None if found is None else {**found, "host": platform.node()}


def architecture_of(parts: Iterable[Any]) -> list[list[str]]:
    """Return the modules of a network's classes with the digests of their code."""
    modules = {type(part).__module__ for part in parts}
    own = sorted(name for name in modules if name.partition(".")[0] != "torch" and not name.startswith("_orchestrator_"))
    return [[name, code_digest(name) if name in sys.modules else ""] for name in own]


def _home(name: str) -> Path:
    """Return the folder of a module's top package, or the module's file."""
    module = sys.modules.get(name)
    top = sys.modules.get(name.partition(".")[0])
    if name.partition(".")[0] in ("orchestrator", "torch") or top is None:
        return _file(module)
    file = getattr(top, "__file__", None)
    return Path(file).parent if file and Path(file).name == "__init__.py" else _file(module)


def _file(module: ModuleType | None) -> Path:
    file = getattr(module, "__file__", None)
    return Path(file) if file else Path("/nonexistent")


@functools.cache
def _tree_digest(path: Path) -> str:
    """Return the digest of a file, or of all Python files below a folder, with their names."""
    if not path.is_dir():
        return file_digest(path) if path.is_file() else ""
    files = sorted(path.rglob("*.py"))
    if len(files) > MOST_FILES:
        return digest_of([[str(file.relative_to(path)), file.stat().st_size] for file in files])
    return digest_of([[str(file.relative_to(path)), file_digest(file)] for file in files])
