"""From measurements to a profile: models fitted to the tiny networks, validated on small real ones, with all sources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from orchestrator.hardware.estimate import estimate_latency
from orchestrator.hardware.graph import count
from orchestrator.hardware.latency_fit import LEAST_OBSERVATIONS, Observation, fit_latency_model
from orchestrator.hardware.probe import SOURCES
from orchestrator.measuring.characterization.machine_values import (
    LEAST_CHECKS,
    MEASURED,
    best_threads,
    core_of,
    runtime_support,
    with_error,
)
from orchestrator.measuring.characterization.measure import TRIED, MachineMeasurement, Setting
from orchestrator.measuring.characterization.networks import micro_networks, real_networks
from orchestrator.values.characterization import FitCheck
from orchestrator.values.profile import HardwareProfile, LatencyModel, Memory
from orchestrator.values.results import Difference

STEADY = 1.15  # from this drift of the reference on, the machine was not idle


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterizationData:
    """A machine as it was measured.

    Attributes:
        profile: The machine's own description, with the measured runtime.
        how: Who measured what where and when: the beginning of every source.
        when: The day.
        bandwidth: Memory bandwidth in bytes a second, or None if it could not be measured.
    """

    profile: HardwareProfile
    measurement: MachineMeasurement
    how: str
    when: date
    bandwidth: float | None


def measured_profile(machine: CharacterizationData) -> tuple[HardwareProfile, tuple[FitCheck, ...], tuple[str, ...]]:
    """Return the profile, the validation networks, and notes on the measurement."""
    models, notes = _models(machine)
    profile = _with_runtime(replace(machine.profile, latency_models=tuple(models)), machine)
    profile = with_error(profile, _checks(profile, machine))
    checks = _checks(profile, machine)  # again, with the bands of the first fit
    profile = replace(profile, latency_models=tuple(_told(model, checks) for model in profile.latency_models))
    for setting, watch in machine.measurement.watches.items():
        notes += [f"{name} ({setting}) could not be run and is left out: {why}" for name, why in watch.failed.items()]
        if watch.drift > STEADY:
            notes.append(
                f"{setting}: the same network took up to {watch.drift:.2f} times as long at one time as at another; "
                f"characterize again when the machine is quiet"
            )
    return profile, tuple(checks), tuple(notes)


def _models(machine: CharacterizationData) -> tuple[list[LatencyModel], list[str]]:
    """Return one latency model for each format and number of threads, and the reasons why some are missing."""
    models, notes = [], []
    for setting in machine.measurement.watches:
        observations = [
            Observation(name=name, graph=count(path), milliseconds=took.value)
            for name, (path, took) in machine.measurement.times(setting, micro_networks()).items()
        ]
        if len(observations) < LEAST_OBSERVATIONS:
            notes.append(f"{setting}: only {len(observations)} networks could be timed, too few to fit a model")
            continue
        models.append(
            fit_latency_model(
                observations,
                runtime=machine.profile.runtimes[0].name,
                number_format=setting.number_format,
                threads=setting.threads,
                core=core_of(machine.profile.clusters[0]),
                fitted_on=f"{len(observations)} tiny networks, timed on {machine.when}",
                source=MEASURED,
            )
        )
    return models, notes


def _with_runtime(profile: HardwareProfile, machine: CharacterizationData) -> HardwareProfile:
    """Return the profile with the runtime, the memory and the sources as measured."""
    measurement, formats = machine.measurement, machine.measurement.formats
    threads = _best_threads(measurement, profile.runtimes[0].threads)
    support = runtime_support(
        profile.runtimes[0],
        name=profile.runtimes[0].name,
        threads=threads,
        formats=formats,
        multiples=measurement.multiples,
        source="runtime",
    )
    sources = {name: text for name, text in profile.sources.items() if name != "mlas"}
    sources["probed"] = f"{machine.how}: read from its operating system (/proc and /sys, sysctl on macOS)"
    sources["runtime"] = _runtime_words(machine)
    if profile.latency_models:
        sources[MEASURED] = (
            f"{machine.how}: tiny networks of one kind of operator each, timed in fresh processes side by side with one of them"
        )
    memory = profile.memory
    if machine.bandwidth is not None:
        sources["memory"] = (
            f"bandwidth: {machine.how}, the best of many copies of an array that fits no cache, by one core or one a fast core, "
            f"bytes read and written together; size: read from the operating system"
        )
        memory = Memory(
            size_bytes=memory.size_bytes, bandwidth_bytes_per_second=float(f"{machine.bandwidth:.4g}"), source="memory"
        )
    return replace(profile, runtimes=(support,), sources=sources, memory=memory)


def _runtime_words(machine: CharacterizationData) -> str:
    measurement = machine.measurement
    parts = [machine.how]
    if measurement.formats is not None:
        names = " and ".join(network.name for network in real_networks()[:TRIED])
        ratios = measurement.formats.words() or "none of the others ran"
        parts.append(f"formats and int8 schemes by their time against float32's on {names} ({ratios})")
    else:
        parts.append("formats and int8 schemes were not measured, but are those known of such machines")
    flat = [number_format for number_format in measurement.tried_multiples if number_format not in measurement.multiples]
    if measurement.multiples:
        measured = ", ".join(f"{multiple} in {form}" for form, multiple in measurement.multiples.items())
        parts.append(f"channel multiples from 1x1 convolutions with 32 to 48 channels ({measured})")
    if flat or not measurement.tried_multiples:
        where = f"of {', '.join(flat)} show no stairs there and" if flat else "were not measured and"
        parts.append(f"channel multiples {where} are those of the vector's width: {SOURCES['mlas']}")
    return "; ".join(parts)


def _best_threads(measurement: MachineMeasurement, known: int) -> int:
    """Return the best number of threads of the networks that were timed with all, or the known one."""
    networks = (*real_networks(), *micro_networks())
    by_threads = {s.threads: measurement.times(s, networks) for s in measurement.watches if s.number_format == "float32"}
    if set(by_threads) != set(measurement.threads):
        return known
    common = set.intersection(*(set(found) for found in by_threads.values()))
    real = [network.name for network in real_networks() if network.name in common]
    names = real or sorted(common)
    return best_threads({n: [found[name][1].value for name in names] for n, found in by_threads.items()})


def _checks(profile: HardwareProfile, machine: CharacterizationData) -> list[FitCheck]:
    checks = []
    for model in profile.latency_models:
        setting = Setting(model.number_format, model.threads)
        for name, (path, took) in machine.measurement.times(setting, real_networks()).items():
            estimate = estimate_latency(path, profile, model.runtime, model.threads)
            checks.append(
                FitCheck(
                    network=name,
                    number_format=model.number_format,
                    threads=model.threads,
                    measured=took,
                    estimated=Difference(value=estimate.value, low=estimate.low, high=estimate.high),
                )
            )
    return checks


def _told(model: LatencyModel, checks: Sequence[FitCheck]) -> LatencyModel:
    """Return the model with its validation in the description."""
    own = [c for c in checks if (c.number_format, c.threads) == (model.number_format, model.threads)]
    if not own:
        return replace(model, fitted_on=f"{model.fitted_on}; its error is that of tiny networks left out of the fit")
    names = ", ".join(f"{c.network} {c.error:+.0%}" for c in own)
    few = "" if len(own) >= LEAST_CHECKS else " (few: the true error may be larger)"
    return replace(model, fitted_on=f"{model.fitted_on}; held against {len(own)} networks that were not in the fit{few}: {names}")
