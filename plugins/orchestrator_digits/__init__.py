"""The embedded default task: scikit-learn's handwritten digits and a small residual CNN, trained on first use."""

from orchestrator.plugin import TaskSource, hookimpl


@hookimpl
def orchestrator_tasks() -> list[TaskSource]:
    """Return the digits task."""
    return [
        TaskSource(
            name="digits",
            summary="handwritten digits (UCI, through scikit-learn) at 32x32 pixels; a residual CNN of 15 M MACs",
            model="orchestrator_digits.network:network",
            data="orchestrator_digits.data:digits",
            default=True,
        )
    ]
