"""Hardware profile files: look-up by name, alias or path, loading and validation."""

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.errors import ProfileError, unknown
from orchestrator.hardware.probe import probe_host
from orchestrator.hardware.profile_rules import broken_laws, unused_sources
from orchestrator.hardware.toml_file import fail, line_of, read_toml, schema_problems, told, validated
from orchestrator.values.device import HOST
from orchestrator.values.profile import HardwareProfile


def resolve_profile(
    reference: str, files: Mapping[str, Path], probe: Callable[[], HardwareProfile] = probe_host
) -> HardwareProfile:
    """Return the profile of `--target`: 'host' is probed, others are loaded.

    Args:
        reference: Name, alias or path.
        files: The profile files of plugins, by stem.
        probe: Returns the profile of this machine.

    Raises:
        ProfileError: As for load_profile.
    """
    return probe() if reference == HOST else load_profile(reference, files)


def load_profile(reference: str, files: Mapping[str, Path]) -> HardwareProfile:
    """Load a profile by name or alias, or from a path that ends in .toml.

    Raises:
        ProfileError: The name is unknown, two files claim it, or the file violates the schema; one line with the place.
    """
    if reference.endswith(".toml"):
        return _load_file(Path(reference))
    index = index_profiles(files)
    if reference not in index:
        raise ProfileError(unknown("target", reference, [*index, HOST]))
    first, *others = index[reference]
    if others:
        raise ProfileError(f"the target name '{reference}' is claimed by {first} and by {others[0]}; rename one")
    return _load_file(first)


def index_profiles(files: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Return the files that claim every name and alias; a conflict affects only those who request that name.

    A file that is not TOML is known by its stem.
    """
    index: dict[str, list[Path]] = {}
    for stem, path in files.items():
        for name in dict.fromkeys(_claimed_names(stem, path)):
            index.setdefault(name, []).append(path)
    return index


def _claimed_names(stem: str, path: Path) -> list[str]:
    try:
        data, _ = read_toml(path)
    except ProfileError:
        return [stem]
    aliases = data.get("aliases")
    names = [data.get("name", stem), *(aliases if isinstance(aliases, list) else [])]
    return [name for name in names if isinstance(name, str)] or [stem]


def check_profile(path: Path) -> list[str]:
    """Return all problems of a profile's file, one line each with file, line and key.

    It is stricter than loading: unused sources are reported too.

    Raises:
        ProfileError: The file cannot be read, or is not TOML.
    """
    data, text = read_toml(path)
    problems = [*schema_problems(HardwareProfile, data), *broken_laws(data), *unused_sources(data)]
    lines = {told(path, text, location, message): line_of(text, location) or 0 for location, message in problems}
    return sorted(lines, key=lambda line: lines[line])


def _load_file(path: Path) -> HardwareProfile:
    data, text = read_toml(path)
    profile = validated(HardwareProfile, data, text, path)
    for location, message in broken_laws(data):
        fail(path, text, location, message)
    return profile
