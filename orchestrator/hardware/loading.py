"""Finding a hardware profile by name, alias or path, and holding it to the laws that span several of its tables."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator.errors import ProfileError, unknown
from orchestrator.hardware.probe import probe_host
from orchestrator.hardware.toml_file import Location, fail, read_toml, validated
from orchestrator.values.profile import HardwareProfile

HOST = "host"


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
    return _load_file(index[reference])


def index_profiles(files: Mapping[str, Path]) -> dict[str, Path]:
    """The file behind every name and alias.

    A file that is no TOML keeps its stem for a name, so that it stops nobody but those who ask for it.

    Raises:
        ProfileError: two files claim one name or alias.
    """
    index: dict[str, Path] = {}
    for stem, path in files.items():
        for name in dict.fromkeys(_claimed_names(stem, path)):
            if name in index:
                raise ProfileError(f"the target name '{name}' is claimed by {index[name]} and by {path}; rename one")
            index[name] = path
    return index


def _claimed_names(stem: str, path: Path) -> list[str]:
    try:
        data, _ = read_toml(path)
    except ProfileError:
        return [stem]
    aliases = data.get("aliases")
    names = [data.get("name", stem), *(aliases if isinstance(aliases, list) else [])]
    return [name for name in names if isinstance(name, str)] or [stem]


def _load_file(path: Path) -> HardwareProfile:
    data, text = read_toml(path)
    profile = validated(HardwareProfile, data, text, path)
    for location, message in _broken_laws(profile):
        fail(path, text, location, message)
    return profile


def _broken_laws(profile: HardwareProfile) -> Iterator[tuple[Location, str]]:
    """What no single value can tell: names that must be known elsewhere in the file, names given twice."""
    yield from _unknown_sources(profile)
    for key, names in (("name", (profile.name,)), ("aliases", profile.aliases)):
        for name in names:
            if name == HOST or name.endswith(".toml"):
                yield (key,), f"'{name}' cannot name a profile: 'host' is the machine itself, '.toml' marks a path"
    if len({profile.name, *profile.aliases}) <= len(profile.aliases):
        yield ("aliases",), f"a name must stand once, but got name '{profile.name}' and aliases {list(profile.aliases)}"
    cores = sum(cluster.cores for cluster in profile.clusters)
    runtimes: set[str] = set()
    for i, runtime in enumerate(profile.runtimes):
        here: Location = ("runtimes", i)
        if runtime.name in runtimes:
            yield (*here, "name"), f"the runtime '{runtime.name}' is listed twice; keep one"
        runtimes.add(runtime.name)
        if runtime.threads > cores:
            yield (*here, "threads"), f"threads <= {cores}, the cores of all clusters, must hold, but got {runtime.threads}"
        if ("int8" in runtime.formats) != bool(runtime.int8_schemes):
            yield (*here, "int8_schemes"), "int8_schemes must be given exactly when formats list 'int8'"
        for number_format in runtime.channel_multiple:
            if number_format not in runtime.formats:
                yield (*here, "channel_multiple", number_format), f"'{number_format}' is not among the formats"
    fitted: set[str] = set()
    for i, cost in enumerate(profile.cost_models):
        if cost.runtime not in runtimes:
            yield ("cost_models", i, "runtime"), unknown("runtime", cost.runtime, runtimes)
        if cost.runtime in fitted:
            yield ("cost_models", i, "runtime"), f"the runtime '{cost.runtime}' has two cost models; keep one"
        fitted.add(cost.runtime)


def _unknown_sources(profile: HardwareProfile) -> Iterator[tuple[Location, str]]:
    named: list[tuple[Location, str]] = [(("memory",), profile.memory.source)]
    named += [(("clusters", i), c.source) for i, c in enumerate(profile.clusters)]
    named += [(("runtimes", i), r.source) for i, r in enumerate(profile.runtimes)]
    named += [(("cost_models", i), c.source) for i, c in enumerate(profile.cost_models)]
    if profile.limits is not None:
        named.append((("limits",), profile.limits.source))
    for location, source in named:
        if source not in profile.sources:
            yield (*location, "source"), unknown("source", source, profile.sources)
