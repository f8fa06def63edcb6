"""Everything the orchestrator raises on purpose: one root, one child for each way out of the program."""

import difflib
import errno
from collections.abc import Iterable
from typing import Literal

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of the operating system that are the machine's, not a candidate's: the run stops and goes on when they are fixed."""

FailureKind = Literal["error", "crash", "timeout", "out-of-memory", "limit"]
"""Kinds of a candidate's failure."""


class OrchestratorError(Exception):
    """The root. Its message is one line that says what was wrong and how to fix it."""

    exit_code = 2


class InputError(OrchestratorError):
    """What the user gave (an option, a file, a factory, an array) cannot be used."""


class ProfileError(InputError):
    """A hardware profile or a search file breaks its schema."""


class ParameterError(InputError):
    """A method's parameter has a value outside its declaration."""


class PluginError(InputError):
    """A plugin that was named cannot be used, or two plugins collide."""


class EnvironmentFailure(OrchestratorError):
    """The machine failed, not the input: disk full, run directory in use, board out of reach."""

    exit_code = 4


class DeviceUnavailable(EnvironmentFailure):
    """The device cannot be reached, or another search holds it. Trying again later may help."""


class RunInUseError(EnvironmentFailure):
    """Another process holds the run directory."""


class Interrupted(OrchestratorError):
    """The user stopped the run; everything complete is kept."""

    exit_code = 130


class JobFailed(OrchestratorError):
    """A process raised, crashed, hung or exceeded its memory limit.

    Attributes:
        kind: How it failed; "input" and "surroundings" stand for failures that are not the candidate's fault.
        step: What it was doing, where that is known.
    """

    def __init__(self, kind: FailureKind | Literal["input", "surroundings"], message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.step = step


class MethodError(OrchestratorError):
    """A method cannot do its work on this model: the candidate fails, the search goes on."""


class Refused(OrchestratorError):
    """A method says, before the search, that it is not to be offered for this model, task or target, and why."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not known, with the nearest ones that are."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {what} '{name}'; {hint}"


def one_line(error: BaseException, length: int = 200) -> str:
    """Return the type and message of an exception on one line, the message cut to `length` characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:length]}"
