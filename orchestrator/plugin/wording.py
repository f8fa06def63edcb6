"""Numbers as a method's `phrase` writes them."""

from orchestrator.values.recipe import ParameterValue


def percent(share: ParameterValue) -> str:
    """A share of 1 in per cent: 0.35 is "35 %"."""
    return f"{float(share) * 100:.3g} %"


def plural(count: ParameterValue, what: str) -> str:
    """A count with its noun: "1 epoch", "0.3 epochs", "2 layers"."""
    return f"{float(count):g} {what}{'' if count == 1 else 's'}"
