"""Search ranges of the epochs that a method trains for, within the budget of a run."""

from orchestrator.errors import Refused
from orchestrator.plugin.method import BuildContext
from orchestrator.plugin.parameters import Number

LEAST_EPOCHS = 0.001

EPOCHS = Number(
    name="epochs",
    help="passes over the train split; may be a fraction",
    low=1,
    high=10,
    step=4.5,
    default=1,
    bounds=(LEAST_EPOCHS, 1000),
)
"""The parameter of a method that trains; `offer` narrows it to `epochs_range`."""


def epochs_range(context: BuildContext) -> dict[str, float]:
    """Return the search range of `EPOCHS`: the least, the middle and the most epochs that the budget affords.

    Raises:
        Refused: The budget affords no training.
    """
    least, most = context.epochs
    if most < LEAST_EPOCHS:
        raise Refused("the budget affords no training; give the search more time")
    least = max(least, LEAST_EPOCHS)
    return {"low": least, "high": most, "step": max((most - least) / 2, 1e-3), "default": most}


def epochs_share(context: BuildContext, share: float) -> dict[str, float]:
    """Return a search range of one value: a share of the most epochs that the budget affords for recovery."""
    epochs = max(round(share * context.epochs[1], 4), LEAST_EPOCHS)
    return {"low": epochs, "high": epochs, "default": epochs}
