"""A recipe as a chain of steps: their legal order and the keys of their results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.building.step_cache import ORIGINAL, StepCache
from orchestrator.errors import FULL, OrchestratorError
from orchestrator.plugin.method import Method, OnnxMethod, TorchMethod
from orchestrator.values.recipe import Step


class StepFailed(OrchestratorError):
    """A step of a recipe raised; the message is the reason."""

    def __init__(self, step: str, message: str, kind: str = "error") -> None:
        super().__init__(message)
        self.step, self.kind = step, kind


class RecipeChain:
    """The steps of recipes on one task."""

    def __init__(self, methods: Mapping[str, Method], results: StepCache) -> None:
        self._methods, self._results = methods, results

    def on_modules(self, steps: Sequence[Step]) -> int:
        """Return the number of leading steps from module to module.

        Raises:
            StepFailed: A step on the module comes after one on the file.
        """
        kinds = [self._methods[step.method] for step in steps]
        count = next((k for k, method in enumerate(kinds) if not isinstance(method, TorchMethod)), len(steps))
        for step, method in zip(steps[count:], kinds[count:], strict=True):
            if not isinstance(method, OnnxMethod) and (step is not steps[count] or isinstance(method, TorchMethod)):
                raise StepFailed("recipe", "a step on the torch module cannot follow a step on the ONNX file")
        return count

    def keys(self, steps: Sequence[Step]) -> list[str]:
        """Return the key of each step's result."""
        key, found, is_file = ORIGINAL, list[str](), False
        for step in steps:
            method = self._methods[step.method]
            if isinstance(method, OnnxMethod) and not is_file:
                key = self._results.exported(key)
            is_file = not isinstance(method, TorchMethod)
            key = self._results.key(self._results.address(key, step, method), method.reads)
            found.append(key)
        return found

    def given(self, before: Sequence[Step], method: Method) -> str:
        """Return the key of a method's input after those steps."""
        keys = self.keys(before)
        key = keys[-1] if keys else ORIGINAL
        is_file = bool(before) and not isinstance(self._methods[before[-1].method], TorchMethod)
        return self._results.exported(key) if isinstance(method, OnnxMethod) and not is_file else key

    def file(self, steps: Sequence[Step]) -> str:
        """Return the key of a recipe's file, or of the network's export."""
        keys = self.keys(steps)
        is_file = bool(steps) and not isinstance(self._methods[steps[-1].method], TorchMethod)
        return keys[-1] if is_file else self._results.exported(keys[-1] if keys else ORIGINAL)


def guarded(step: str, work: Callable[[], Any]) -> Any:
    """Run a step; an exception becomes the reason of a failed candidate.

    Raises:
        StepFailed: The step raised.
        OSError: The disk is full, or the like: not the candidate's fault.
    """
    try:
        return work()
    except MemoryError as error:
        raise StepFailed(step, f"MemoryError: {error}", "out-of-memory") from error
    except OSError as error:
        if error.errno in FULL:
            raise  # the run stops, and can be resumed once it is fixed
        raise StepFailed(step, f"{type(error).__name__}: {error}") from error
    except OrchestratorError as error:
        raise StepFailed(step, str(error)) from error
    except Exception as error:  # a method, ours or a third party's, may raise anything
        text = (str(error).strip().splitlines() or ["(no message)"])[0]
        raise StepFailed(step, f"{type(error).__name__}: {text}") from error
