"""Rules of a profile across its tables: undefined and duplicate names, values without a source, values in a wrong unit.

They are checked on the plain TOML tables, not on the finished profile, so that `profiles check` can list every problem of a
file at once: values that violate the schema are skipped here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from orchestrator.errors import unknown
from orchestrator.hardware.features import UNITS
from orchestrator.hardware.toml_file import Location
from orchestrator.values.device import HOST

Problem = tuple[Location, str]
Table = Mapping[str, Any]

LISTS = ("clusters", "runtimes", "latency_models", "simulations")
SINGLES = ("memory", "limits")

_MODEL_KEYS = {
    "latency_models": ("runtime", "number_format", "threads"),
    "simulations": ("runtime", "cpu"),
}

LEAST_CLOCK_HZ = 5e7
MOST_CLOCK_HZ = 2e10
LEAST_MEMORY_BYTES = 65_536  # too small even for a microcontroller's network
LEAST_RATE = 1e7
MOST_RATE = 1e14


def broken_laws(data: Table) -> Iterator[Problem]:
    """Return all problems across the tables of a profile, which make it unusable."""
    yield from _names(data)
    yield from _runtimes(data)
    yield from _models(data)
    yield from _clusters(data)
    yield from _sources(data)
    yield from _units(data)


def unused_sources(data: Table) -> Iterator[Problem]:
    """Return sources that no table names; the profile is usable nevertheless."""
    used = {table.get("source") for _, table in _tables(data)}
    for name in _mapping(data.get("sources")):
        if name not in used:
            yield ("sources", name), f"nothing uses the source '{name}'; delete it, or name it where its values are"


def _names(data: Table) -> Iterator[Problem]:
    name, aliases = data.get("name"), _strings(data.get("aliases"))
    for key, names in (("name", [name]), ("aliases", aliases)):
        for one in names:
            if one == HOST or (isinstance(one, str) and one.endswith(".toml")):
                yield (key,), f"'{one}' cannot name a profile: 'host' is the machine itself, '.toml' marks a path"
    if len({name, *aliases}) <= len(aliases):
        yield ("aliases",), f"a name must stand once, but got name '{name}' and aliases {aliases}"


def _runtimes(data: Table) -> Iterator[Problem]:
    clusters = {str(c.get("name")): c for _, c in _listed(data, "clusters")}
    cores = sum(c.get("cores", 0) for c in clusters.values() if _is_number(c.get("cores")))
    seen: set[str] = set()
    for here, runtime in _listed(data, "runtimes"):
        name, threads = str(runtime.get("name")), runtime.get("threads")
        if name in seen:
            yield (*here, "name"), f"the runtime '{name}' is listed twice; keep one"
        seen.add(name)
        if _is_number(threads) and threads > cores:
            yield (*here, "threads"), f"threads <= {cores}, the cores of all clusters, must hold, but got {threads}"
        if "cluster" in runtime and runtime["cluster"] not in clusters:
            yield (*here, "cluster"), unknown("cluster", str(runtime["cluster"]), clusters)
        formats, legal = _strings(runtime.get("formats")), _strings(runtime.get("legal_formats"))
        if ("int8" in formats) != bool(runtime.get("int8_schemes")):
            yield (*here, "int8_schemes"), "int8_schemes must be given exactly when formats list 'int8'"
        for number_format in formats if legal else []:
            if number_format not in legal:
                yield (*here, "legal_formats"), f"'{number_format}' is among the formats, so it must be legal too; add it"
        for number_format in _mapping(runtime.get("channel_multiple")):
            if number_format not in {*formats, *legal}:
                yield (*here, "channel_multiple", number_format), f"'{number_format}' is not among the formats"


def _models(data: Table) -> Iterator[Problem]:
    """Check that each fitted model is of a runtime of this machine, and occurs once."""
    runtimes = [str(r.get("name")) for _, r in _listed(data, "runtimes")]
    clusters = [str(c.get("name")) for _, c in _listed(data, "clusters")]
    for kind, parts in _MODEL_KEYS.items():
        seen: set[tuple[Any, ...]] = set()
        for here, model in _listed(data, kind):
            if "runtime" in model and model["runtime"] not in runtimes:
                yield (*here, "runtime"), unknown("runtime", str(model["runtime"]), runtimes)
            key = tuple(str(model.get(part)) for part in parts)
            if key in seen:
                yield (*here, parts[0]), f"{kind.replace('_', ' ')} for {', '.join(key)} stand here twice; keep one"
            seen.add(key)
            if "cluster" in model and model["cluster"] not in clusters:
                yield (*here, "cluster"), unknown("cluster", str(model["cluster"]), clusters)
            priced = model.get("nanoseconds")
            for feature in priced if isinstance(priced, Mapping) else ():
                if feature not in UNITS:
                    yield (*here, "nanoseconds", feature), unknown("feature", feature, UNITS)


def _clusters(data: Table) -> Iterator[Problem]:
    names: set[str] = set()
    for here, cluster in _listed(data, "clusters"):
        name, cores, sharing = str(cluster.get("name")), cluster.get("cores"), cluster.get("l2_shared_by")
        if name in names:
            yield (*here, "name"), f"the cluster '{name}' is listed twice; keep one, or tell them apart"
        names.add(name)
        if sharing is not None and "l2_bytes" not in cluster:
            yield (*here, "l2_shared_by"), "l2_shared_by says how many cores share the L2, so l2_bytes must be given too"
        if _is_number(sharing) and _is_number(cores) and sharing > cores:
            yield (*here, "l2_shared_by"), f"l2_shared_by <= cores must hold, but got {sharing} and {cores}"


def _sources(data: Table) -> Iterator[Problem]:
    sources = _mapping(data.get("sources"))
    for name, text in sources.items():
        if isinstance(text, str) and not text.strip():
            yield (
                ("sources", name),
                f"the source '{name}' is empty; describe where its values come from (who, what, which version)",
            )
    for here, table in _tables(data):
        source = table.get("source")
        if isinstance(source, str) and source not in sources:
            yield (*here, "source"), unknown("source", source, sources)


def _units(data: Table) -> Iterator[Problem]:
    """Return values that can only be in another unit, with the probable one."""
    for here, cluster in _listed(data, "clusters"):
        yield from _clock(here, cluster.get("clock_hz"))
        for key, least in (("l1d_bytes", 1024), ("l2_bytes", 4096), ("l3_bytes", 65_536)):
            size = cluster.get(key)
            if _is_number(size) and 0 < size < least:
                factor = 1024**2 if key == "l3_bytes" and size < 1024 else 1024
                yield (*here, key), f"{size} bytes are no cache; if {size} {_unit(factor)} are meant, write {size * factor:_}"
    memory, limits = _mapping(data.get("memory")), _mapping(data.get("limits"))
    yield from _amount(("memory", "size_bytes"), memory.get("size_bytes"), most_gib=128)
    yield from _amount(("limits", "memory_bytes"), limits.get("memory_bytes"), most_gib=16)
    for key in ("bandwidth_bytes_per_second", "peak_bytes_per_second"):
        yield from _rate(("memory", key), memory.get(key))
    reached, peak = memory.get("bandwidth_bytes_per_second"), memory.get("peak_bytes_per_second")
    if _is_number(reached) and _is_number(peak) and reached > peak:
        yield (
            ("memory", "bandwidth_bytes_per_second"),
            f"bandwidth_bytes_per_second <= peak_bytes_per_second must hold, but got {reached:g} and {peak:g}",
        )
    size, limit = memory.get("size_bytes"), limits.get("memory_bytes")
    if _is_number(size) and _is_number(limit) and limit > size:
        yield ("limits", "memory_bytes"), f"memory_bytes <= {size:_}, the memory's size, must hold, but got {limit:_}"


def _clock(here: Location, clock: Any) -> Iterator[Problem]:
    if not _is_number(clock) or clock <= 0 or LEAST_CLOCK_HZ <= clock <= MOST_CLOCK_HZ:
        return
    steps = ((20, 1e9, "GHz"), (2e4, 1e6, "MHz"), (2e7, 1e3, "kHz"))
    factor, unit = next(((factor, unit) for most, factor, unit in steps if clock <= most), (1.0, ""))
    hint = f"; if {clock:g} {unit} are meant, write {_exponent(clock * factor)}" if unit else "; clocks are in hertz"
    yield (*here, "clock_hz"), f"no core runs at {clock:g} Hz{hint}"


def _amount(where: Location, size: Any, *, most_gib: int) -> Iterator[Problem]:
    """Return the problem of an implausible number of bytes; up to `most_gib` it was probably GiB."""
    if _is_number(size) and 0 < size < LEAST_MEMORY_BYTES:
        factor = 1024**3 if size <= most_gib else 1024**2
        yield where, f"{size} bytes are too few; if {size} {_unit(factor)} are meant, write {size * factor:_}"


def _rate(where: Location, rate: Any) -> Iterator[Problem]:
    if not _is_number(rate) or rate <= 0:
        return
    if rate > MOST_RATE:
        yield where, f"no memory moves {rate:g} bytes a second; bits, or too many zeros?"
    if rate < LEAST_RATE:
        factor, unit = (1e9, "GB/s") if rate < 2000 else (1e6, "MB/s")
        yield where, f"{rate:g} bytes a second are too few; if {rate:g} {unit} are meant, write {_exponent(rate * factor)}"


def _exponent(value: float) -> str:
    return f"{value:g}".replace("e+0", "e").replace("e+", "e")


def _unit(factor: int) -> str:
    return {1024: "KiB", 1024**2: "MiB", 1024**3: "GiB"}[factor]


def _tables(data: Table) -> Iterator[tuple[Location, Table]]:
    """Return every table that names a source."""
    for key in SINGLES:
        if isinstance(data.get(key), Mapping):
            yield (key,), data[key]
    for key in LISTS:
        yield from _listed(data, key)


def _listed(data: Table, key: str) -> Iterator[tuple[Location, Table]]:
    tables = data.get(key)
    for i, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, Mapping):
            yield (key, i), table


def _mapping(value: Any) -> Table:
    return value if isinstance(value, Mapping) else {}


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
