"""The contract of a ready-made task: a model and its data under one name."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSource:
    """A task by name: what a search works on that names none.

    Attributes:
        model, data: References to factories, "package.module:factory", as a user would give them.
        default: Whether this is the task of a search that names none.
    """

    name: str
    summary: str
    model: str
    data: str
    default: bool = False
