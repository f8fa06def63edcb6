"""Finding a hardware profile by name, alias or path, and holding it to its schema and its laws."""

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.errors import ProfileError, unknown
from orchestrator.hardware.probe import probe_host
from orchestrator.hardware.profile_rules import HOST, broken_laws, unused_sources
from orchestrator.hardware.toml_file import fail, line_of, read_toml, schema_problems, told, validated
from orchestrator.values.profile import HardwareProfile


def resolve_profile(
    reference: str, files: Mapping[str, Path], probe: Callable[[], HardwareProfile] = probe_host
) -> HardwareProfile:
    """The profile that `--target` names: 'host' is probed, everything else is loaded.

    Args:
        files: The profile files that plugins brought, by stem.
        probe: What describes this machine.

    Raises:
        ProfileError: as for load_profile.
    """
    return probe() if reference == HOST else load_profile(reference, files)


def load_profile(reference: str, files: Mapping[str, Path]) -> HardwareProfile:
    """Load a profile by name or alias, or from a path that ends in .toml.

    Raises:
        ProfileError: the name is unknown, two files claim it, or the file breaks the schema; one line that says where.
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
    """The files that claim every name and alias; where several claim one, it stops nobody but those who ask for it.

    A file that is no TOML keeps its stem for a name, for the same reason.
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
    """Everything that is wrong with a profile's file, one line each with file, line and key; empty: it is good.

    It is stricter than loading: sources that nothing uses are told too.

    Raises:
        ProfileError: the file cannot be read, or is no TOML.
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
