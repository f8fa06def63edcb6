"""Terminal output of `orchestrate estimate`."""

from pathlib import Path

from orchestrator.report import formatting
from orchestrator.values.measure import LatencyEstimate


def estimated_lines(model: Path, found: LatencyEstimate, most: int) -> list[str]:
    """Return an estimate as lines for a terminal.

    Args:
        model: The model file.
        found: Its estimate.
        most: Number of listed operators, the most expensive first.
    """
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    lines = [
        f"{model} with {found.runtime}, {threads}, on {found.device}",
        f"latency   ~ {found.median_ms:.4g} ms ({found.low_ms:.4g} to {found.high_ms:.4g}), {found.evidence} from the graph",
        f"basis     {found.fitted_on}",
        *(f"note      {note}" for note in found.notes),
    ]
    if found.unknown:
        lines.append(f"unknown   {', '.join(found.unknown)}: the band is wider for them")
    whole = sum(operator.ms for operator in found.by_operator) or 1.0
    dearest = sorted(found.by_operator, key=lambda operator: -operator.ms)
    width = max((len(operator.op_type) for operator in dearest[:most]), default=0)
    for operator in dearest[:most]:
        mark = "" if operator.known else "  (not known to the model: its memory traffic alone)"
        name = formatting.line(operator.name, 60)
        lines.append(f"{operator.ms / whole:6.1%}  {operator.ms:9.4f} ms  {operator.op_type:<{width}}  {name}{mark}")
    rest = dearest[most:]
    if rest:
        lines.append(f"{sum(o.ms for o in rest) / whole:6.1%}  {sum(o.ms for o in rest):9.4f} ms  {len(rest)} others")
    return lines
