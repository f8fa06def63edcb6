"""Errors: one root, and one subclass for each exit code of the program."""

import difflib
import errno
from collections.abc import Iterable
from typing import Literal

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Operating-system errors that stop the run (disk full, read-only). The run can be resumed once they are fixed."""

FailureKind = Literal["error", "crash", "timeout", "out-of-memory", "limit"]
"""Kinds of a candidate's failure."""


class OrchestratorError(Exception):
    """The root of all errors. Its message is one line that states the problem and the fix."""

    exit_code = 2


class InputError(OrchestratorError):
    """An input (an option, a file, a factory, an array) that cannot be used."""


class ProfileError(InputError):
    """A hardware profile or a search file breaks its schema."""


class ParameterError(InputError):
    """A method's parameter has a value outside its declaration."""


class PluginError(InputError):
    """A plugin that was named cannot be used, or two plugins collide."""


class EnvironmentFailure(OrchestratorError):
    """A failure of the environment, not of the input: disk full, run directory in use, board unreachable."""

    exit_code = 4


class DeviceUnavailable(EnvironmentFailure):
    """A device that is unreachable or in use by another search. A later attempt may succeed."""


class RunInUseError(EnvironmentFailure):
    """Another process holds the run directory."""


class Interrupted(OrchestratorError):
    """An interruption by the user; everything complete is kept."""

    exit_code = 130


class JobFailed(OrchestratorError):
    """A process raised, crashed, hung or exceeded its memory limit.

    Attributes:
        kind: How it failed; "input" and "surroundings" stand for failures that are not the candidate's fault.
        step: What it was doing, if known.
    """

    def __init__(self, kind: FailureKind | Literal["input", "surroundings"], message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.step = step


class MethodError(OrchestratorError):
    """A method cannot do its work on this model: the candidate fails, the search goes on."""


class Refused(OrchestratorError):
    """A method that does not apply to this model, task or target, or a runtime that is not installed, with the reason."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return one line for an unknown name, with the most similar known ones."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {what} '{name}'; {hint}"


def one_line(error: BaseException, length: int = 200) -> str:
    """Return the type and message of an exception on one line, the message cut to `length` characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:length]}"
