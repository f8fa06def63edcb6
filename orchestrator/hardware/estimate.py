"""The latency model: a roofline over the exported graph's operators (Williams, Waterman, Patterson, CACM 52(4), 2009)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.hardware.graph import GraphCount, Operator, count
from orchestrator.values.evidence import Estimate
from orchestrator.values.profile import CostModel, HardwareProfile

VERSION = "roofline 1"


def estimate_latency(
    model_path: Path,
    profile: HardwareProfile,
    runtime: str,
    threads: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Estimate:
    """Compute one inference's latency from the exported file and the profile, without running anything.

    Args:
        threads: Threads of one inference; beyond the last one that the cost model knows, more bring nothing.
        shapes: Full shapes of the inputs that have dynamic axes besides the batch axis, by input name.

    Returns:
        Milliseconds, with the band that holds the true value in about 95 % of cases by the cost model's own account.

    Raises:
        InputError: the file cannot be read, a shape is open, or the profile has no cost model for this runtime and model.
    """
    cost = profile.cost_model(runtime)
    if cost is None:
        raise InputError(
            f"profile '{profile.name}' has no cost model for the runtime '{runtime}', so nothing can be estimated; "
            f"measure on the device instead"
        )
    return estimate_count(count(model_path, shapes), cost, threads)


def estimate_count(graph: GraphCount, cost: CostModel, threads: int) -> Estimate:
    """The same from a count that is already there.

    An operator that the model does not know costs its memory traffic at least, and may cost as much as the dearest one that
    it knows: the band's upper end allows for that.

    Raises:
        InputError: the cost model has no rate for a number format of the graph, or knows none of its operators.
    """
    if threads < 1:
        raise InputError(f"threads >= 1 must hold, but got {threads}")
    timed = [(o, operator_seconds(o, cost, threads)) for o in graph.operators if not o.free and o.fused_into is None]
    known = [seconds for operator, seconds in timed if operator.known]
    if timed and not known:
        raise InputError(f"the latency model knows none of the model's operators ({', '.join(graph.unknown)})")
    total = sum(seconds for _, seconds in timed)
    doubt = max(known, default=0.0) * (len(timed) - len(known))
    return Estimate(
        unit="ms",
        value=1e3 * total,
        low=1e3 * total / cost.error,
        high=1e3 * (total + doubt) * cost.error,
        model=f"{VERSION}, {cost.fitted_on}",
        unknown=graph.unknown,
    )


def operator_seconds(operator: Operator, cost: CostModel, threads: int) -> float:
    """Seconds of one operator: its arithmetic or its memory traffic, whichever takes longer, and the fixed cost.

    More threads speed up the arithmetic; the memory behind them is one.
    """
    traffic = (operator.bytes_read + operator.bytes_written) / cost.bytes_per_second
    if not operator.macs:
        return traffic + cost.seconds_per_operator
    rate = cost.macs_per_second.get(operator.number_format)
    if rate is None:
        raise InputError(
            f"the cost model has no rate for {operator.number_format}, which {operator.op_type} '{operator.name}' needs; "
            f"known: {', '.join(cost.macs_per_second)}"
        )
    if operator.depthwise:
        rate *= cost.depthwise_share
    return max(operator.macs / (rate * _speedup(cost, threads)), traffic) + cost.seconds_per_operator


def _speedup(cost: CostModel, threads: int) -> float:
    table = (1.0, *cost.thread_speedup)
    return table[min(threads, len(table)) - 1]
