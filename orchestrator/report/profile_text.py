"""Terminal output of a hardware profile: the machine, its runtimes, the evidence of its latencies, and their errors."""

from collections.abc import Iterator

from orchestrator.report.formatting import number
from orchestrator.values.profile import Cluster, HardwareProfile, LatencyModel, RuntimeSupport, SimulationModel

NO_EVIDENCE = "only measured, on the device"


def evidence(profile: HardwareProfile) -> str:
    """Return the available evidence of latencies, the strongest first, with the error of estimates, in one line."""
    found = ["measured here"] if profile.device == "host" else [f"measured on {profile.device}"] if profile.device else []
    if profile.simulations:
        found.append(f"simulated ({', '.join(dict.fromkeys(s.cpu for s in profile.simulations))})")
    estimates = [_shortest_error(profile, runtime.name) for runtime in profile.runtimes]
    if any(estimates):
        found.append(f"estimated ({', '.join(text for text in estimates if text)})")
    return ", ".join(found) or NO_EVIDENCE


def profile_lines(profile: HardwareProfile) -> list[str]:
    """Return the profile as lines for a terminal, with all sources."""
    sources = [f"  {name}: {text}" for name, text in profile.sources.items()]
    return [f"{profile.name}: {profile.title}", "", *machine_lines(profile), "", "sources", *sources]


def machine_lines(profile: HardwareProfile) -> list[str]:
    """Return the cores, memory, runtimes, models and limits as lines."""
    rows: list[tuple[str, str]] = [("kind", profile.kind)]
    if profile.aliases:
        rows.append(("also", ", ".join(profile.aliases)))
    rows += [("cores", _cluster(cluster)) for cluster in profile.clusters]
    rows.append(("memory", _memory(profile)))
    for runtime in profile.runtimes:
        rows += [("runtime" if not i else "", line) for i, line in enumerate(_runtime(runtime))]
    rows += [("estimates", _latency_model(model)) for model in profile.latency_models]
    rows += [("simulation", _simulation(model)) for model in profile.simulations]
    if not profile.latency_models and not profile.simulations:
        rows.append(("estimates", f"none: latencies are {evidence(profile)}"))
    if profile.limits is not None and profile.limits.memory_bytes:
        rows.append(("limits", f"memory {_binary(profile.limits.memory_bytes)}"))
    width = max(len(label) for label, _ in rows) + 2
    lines, last = [], ""
    for label, text in rows:
        lines.append(f"{'' if label == last else label:<{width}}{text}")
        last = label or last
    return lines


def _cluster(cluster: Cluster) -> str:
    clock = "clock not known" if cluster.clock_hz is None else f"{number(cluster.clock_hz / 1e9)} GHz"
    return "; ".join(
        [f"{cluster.cores} x {cluster.name}, {clock}", *_caches(cluster), " ".join(cluster.isa) or "no features known"]
    )


def _caches(cluster: Cluster) -> Iterator[str]:
    if cluster.l1d_bytes is not None:
        yield f"L1 data {_binary(cluster.l1d_bytes)}"
    if cluster.l2_bytes is not None:
        shared = {None: "", 1: " per core"}.get(cluster.l2_shared_by, f" shared by {cluster.l2_shared_by}")
        yield f"L2 {_binary(cluster.l2_bytes)}{shared}"
    if cluster.l3_bytes is not None:
        yield f"L3 {_binary(cluster.l3_bytes)}"


def _memory(profile: HardwareProfile) -> str:
    memory = profile.memory
    parts = [_binary(memory.size_bytes)]
    if memory.bandwidth_bytes_per_second is not None:
        parts.append(f"{number(memory.bandwidth_bytes_per_second / 1e9)} GB/s reached")
    if memory.peak_bytes_per_second is not None:
        parts.append(f"{number(memory.peak_bytes_per_second / 1e9)} GB/s at most by the data sheet")
    return ", ".join(parts)


def _runtime(runtime: RuntimeSupport) -> Iterator[str]:
    where = f" on {runtime.cluster}" if runtime.cluster else ""
    yield f"{runtime.name}{where}: {runtime.threads} thread{'s' * (runtime.threads > 1)}, {', '.join(runtime.formats)}"
    idle = [number_format for number_format in runtime.legal_formats if number_format not in runtime.formats]
    if idle:
        yield f"  runs without gain: {', '.join(idle)}"
    if runtime.int8_schemes:
        yield f"  int8 (activations, weights), best first: {', '.join(runtime.int8_schemes)}"
    if runtime.channel_multiple:
        multiples = ", ".join(f"{multiple} in {number_format}" for number_format, multiple in runtime.channel_multiple.items())
        yield f"  channels in multiples of {multiples}"


def _latency_model(model: LatencyModel) -> str:
    error = "no error known" if model.mean_error is None else f"mean error {_percent(model.mean_error)} on networks left out"
    threads = f"{model.threads} thread{'s' * (model.threads > 1)}"
    return f"{model.runtime}, {model.number_format}, {threads}: {error}; 90 % within a factor {model.error:.3g}"


def _simulation(model: SimulationModel) -> str:
    factors = ", ".join(f"{error:.3g} in {number_format}" for number_format, error in model.error.items())
    return f"{model.runtime} on a simulated {model.cpu}: 90 % within a factor {factors}; ratios within {model.ratio_error:.3g}"


def _shortest_error(profile: HardwareProfile, runtime: str) -> str:
    """Return the error of a runtime's estimates: the mean error of networks left out of the fit, else the widest band."""
    models = [model for model in profile.latency_models if model.runtime == runtime]
    if not models:
        return ""
    errors = [model.mean_error for model in models if model.mean_error is not None]
    if len(errors) == len(models):
        return f"{runtime} {_percent(sum(errors) / len(errors))}"
    return f"{runtime} within a factor {max(model.error for model in models):.2g}"


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)} %"


def _binary(value: int) -> str:
    """Format memory and caches in powers of two: 32 KiB, 1 MiB, 4 GiB."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value} bytes"
