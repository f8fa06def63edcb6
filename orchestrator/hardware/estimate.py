"""The latency estimate: the sum of every operator's features times the constants of the profile."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.hardware.features import features
from orchestrator.hardware.graph import GraphCount, Operator, count
from orchestrator.hardware.latency_model import Constants, combined, constants, described
from orchestrator.values.evidence import Estimate
from orchestrator.values.measure import LatencyEstimate, OperatorEstimate
from orchestrator.values.profile import HardwareProfile, NumberFormat

VERSION = "graph features 1"
# Exponent of the size ratio by which the band widens for a network smaller than all of the fit. Our judgement:
# the built-in digits network and its pruned versions, 2 to 17 times smaller, lay 1.6 to 2.4 times off their simulated times.
BELOW_THE_FIT = 1 / 3

HALVES_FLOATS = frozenset({"ncnn"})
"""Runtimes that compute float32 models in float16 by default if the cores support it (ncnn's option use_fp16_arithmetic)."""


def estimate_latency(
    model_path: Path,
    profile: HardwareProfile,
    runtime: str,
    threads: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    number_format: NumberFormat | None = None,
) -> Estimate:
    """Return the milliseconds of one inference as an Estimate; arguments and errors as in `estimate`."""
    found = estimate(model_path, profile, runtime, threads, shapes, number_format=number_format)
    return Estimate(
        unit="ms",
        value=found.median_ms,
        low=found.low_ms,
        high=found.high_ms,
        model=f"{VERSION}, {found.fitted_on}",
        unknown=found.unknown,
    )


def estimate(
    model_path: Path,
    profile: HardwareProfile,
    runtime: str,
    threads: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    number_format: NumberFormat | None = None,
) -> LatencyEstimate:
    """Compute one inference's latency from the exported file and the profile, operator by operator.

    Args:
        model_path: The ONNX file.
        profile: The profile.
        runtime: The runtime.
        threads: Threads of one inference; a number without constants in the profile is derived from its neighbours, with a
            wider band and a note.
        shapes: Full shapes of the inputs that have dynamic axes besides the batch axis, by input name.
        number_format: Format of all arithmetic; None for each operator's own.

    Returns:
        Milliseconds, with the band that contains the true value in about 90 % of cases by the profile's own errors.

    Raises:
        InputError: The file cannot be read, a shape is dynamic, or the profile has no constants for this runtime and format.
    """
    return estimate_count(count(model_path, shapes), profile, runtime, threads, number_format=number_format)


def estimate_count(
    graph: GraphCount, profile: HardwareProfile, runtime: str, threads: int, *, number_format: NumberFormat | None = None
) -> LatencyEstimate:
    """Compute the same from a counted graph.

    An operator that the model does not know, or that needs a feature without a constant, costs at least its memory traffic,
    and at most as much as the most expensive known one, which widens the band's upper end.

    Raises:
        InputError: The profile has no constants for this runtime or a number format of the graph, or the model knows none of
            the graph's operators.
    """
    tables: dict[NumberFormat, Constants] = {}
    costs: dict[str, float] = {}
    kinds: dict[str, tuple[str, bool]] = {}
    unpriced: set[str] = set()
    for operator in graph.operators:
        if operator.free:
            continue
        wanted = number_format or operator.number_format
        if wanted not in tables:
            tables[wanted] = _table(profile, runtime, threads, wanted, operator, asked=number_format is not None)
        place = operator.fused_into or operator.name
        amounts = features(operator, wanted, runtime)
        prices = tables[wanted].nanoseconds
        costs[place] = costs.get(place, 0.0) + sum(n * prices.get(feature, 0.0) for feature, n in amounts.items()) / 1e6
        priced = amounts.keys() <= prices.keys()
        if operator.fused_into is None:
            kinds[operator.name] = operator.op_type, operator.known and priced
        elif not priced:
            unpriced.add(place)
    for place in unpriced & kinds.keys():
        kinds[place] = kinds[place][0], False
    if not tables:
        raise InputError("the model has no operators that take time, so there is nothing to estimate")
    known = [costs[name] for name, (_, is_known) in kinds.items() if is_known]
    unknown = tuple(dict.fromkeys(kind for kind, is_known in kinds.values() if not is_known))
    if not known:
        raise InputError(f"the latency model knows none of the model's operators ({', '.join(unknown)})")
    doubt = max(known) * (len(kinds) - len(known))
    total = sum(costs.values())
    error = max(table.error for table in tables.values())
    notes = [table.note for table in tables.values() if table.note]
    least = max(table.least_macs for table in tables.values())
    if 0 < graph.macs < least:
        error = combined(error, (least / graph.macs) ** BELOW_THE_FIT)
        notes.append(
            f"{graph.macs / 1e6:.3g} million multiply-accumulates are fewer than any network of the fit had ({least / 1e6:.3g}): "
            f"the band is wider for it"
        )
    if doubt:
        notes.append(f"unknown operators may each cost as much as the dearest known one: up to {doubt:.3g} ms more")
    return LatencyEstimate(
        median_ms=total,
        low_ms=total / error,
        high_ms=(total + doubt) * error,
        device=profile.name,
        runtime=runtime,
        threads=threads,
        by_operator=tuple(
            OperatorEstimate(name=name, op_type=kind, ms=costs[name], known=known) for name, (kind, known) in kinds.items()
        ),
        fitted_on="; ".join(dict.fromkeys(table.fitted_on for table in tables.values())),
        unknown=unknown,
        notes=tuple(dict.fromkeys(notes)),
    )


def _table(
    profile: HardwareProfile, runtime: str, threads: int, wanted: NumberFormat, operator: Operator, *, asked: bool
) -> Constants:
    found = constants(profile, runtime, wanted, threads)
    if found is None and wanted == "float32" and not asked and runtime in HALVES_FLOATS:
        found = constants(profile, runtime, "float16", threads)
        if found is not None:
            halved = f"{runtime} computes float32 models in float16 on this machine"
            return replace(found, note=f"{halved}; {found.note}" if found.note else halved)
    if found is None:
        needs = "was asked for" if asked else f"{operator.op_type} '{operator.name}' needs"
        models = [m for m in profile.latency_models if m.runtime == runtime]
        raise InputError(
            f"the latency model of profile '{profile.name}' has no constants for {wanted}, which {needs}; "
            f"it has: {described(models)}"
        )
    return found
