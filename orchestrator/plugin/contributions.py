"""Contracts of the contributing hooks: the types that they return and the names of contributions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ParameterError
from orchestrator.plugin.device import Device
from orchestrator.plugin.method import Method, OnnxMethod, TorchMethod, TorchToOnnxMethod
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.parameters import Choice, Number, check_conditions
from orchestrator.plugin.reads import is_read
from orchestrator.plugin.report_format import ReportFormat
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.runtime_step import PREFIX
from orchestrator.plugin.task import TaskSource
from orchestrator.values.direction import Direction
from orchestrator.values.profile import HardwareProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Contract of one contributing hook.

    Attributes:
        word: Noun for one contribution in messages.
        type: Of the items of the list that the hook returns; None: it returns a dict of callables by name.
        name: The name of an item.

    Raises:
        TypeError: by `name`, for an item whose declaration is incomplete; says what is missing.
    """

    word: str
    type: type[Any] | None
    name: Callable[[Any], str]


def collected(kind: str, answer: Any) -> dict[str, Any]:
    """Return one plugin's contributions of one hook by name.

    Raises:
        TypeError: It breaks the contract; one line describes how.
    """
    hook, contract = f"orchestrator_{kind}", CONTRACTS[kind]
    if contract.type is None:
        if not isinstance(answer, dict) or not all(isinstance(name, str) and name for name in answer):
            raise TypeError(f"{hook} must return a dict by name, but got {answer!r:.80}")
        for name, item in answer.items():
            if not callable(item) and not isinstance(item, ReportFormat):
                raise TypeError(f"{hook}: '{name}' must be a function, but is {item!r:.80}")
        return dict(answer)
    if not isinstance(answer, list | tuple) or not all(isinstance(item, contract.type) for item in answer):
        raise TypeError(f"{hook} must return a list of {contract.type.__name__} instances, but got {answer!r:.80}")
    found: dict[str, Any] = {}
    for item in answer:
        try:
            name = contract.name(item)
        except (AttributeError, TypeError) as error:
            raise TypeError(f"{hook}: {error}") from None
        if name in found:
            raise TypeError(f"{hook} returns two of the name '{name}'")
        found[name] = item
    return found


class WrongAnswerError(TypeError):
    """Result of a wrong type from a query or check hook."""


def answered(hook: str, answer: Any) -> Any:
    """Return one plugin's result of a query or check hook, after checking its type.

    Raises:
        WrongAnswerError: It breaks the hook's contract.
    """
    if answer is None:
        return None
    if hook == "orchestrator_check_recipe" and not (
        isinstance(answer, list | tuple) and all(isinstance(reason, str) for reason in answer)
    ):
        raise WrongAnswerError(f"{hook} must return a list of sentences, but got {answer!r:.80}")
    if hook == "orchestrator_probe_host" and not isinstance(answer, HardwareProfile):
        raise WrongAnswerError(f"{hook} must return a HardwareProfile or None, but got {answer!r:.80}")
    return answer


def _declared(item: Any, *attributes: tuple[str, type]) -> None:
    for attribute, kind in attributes:
        value = getattr(item, attribute, None)
        if not isinstance(value, kind) or value == "":
            raise TypeError(f"{type(item).__name__} must declare `{attribute}`, {kind.__name__}")


def _method_name(method: Method) -> str:
    if not isinstance(method, TorchMethod | TorchToOnnxMethod | OnnxMethod):
        raise TypeError(f"{type(method).__name__} must be a TorchMethod, a TorchToOnnxMethod or an OnnxMethod")
    _declared(method, ("name", str), ("version", int), ("family", str))
    if method.name.startswith(PREFIX):
        raise TypeError(f"{method.name}: names that begin with '{PREFIX}' are steps that choose a runtime")
    for attribute in ("after", "before", "requires", "needs", "keeps", "reads", "offer_reads"):
        value = getattr(method, attribute)
        if not isinstance(value, frozenset | set) or not all(isinstance(entry, str) for entry in value):
            raise TypeError(f"{method.name} must declare `{attribute}`, a frozenset of str, but has {value!r:.80}")
    for read in sorted(method.reads | method.offer_reads):
        if not is_read(read):
            raise TypeError(f"{method.name}: `reads` has '{read}', which is no part of a context; see orchestrator.plugin.reads")
    for parameter in method.parameters:
        if not isinstance(parameter, Choice | Number):
            raise TypeError(f"{method.name}: parameters must be Choice or Number, but got {type(parameter).__name__}")
    try:
        check_conditions(method.parameters)
    except ParameterError as error:
        raise TypeError(f"{method.name}: {error}") from None
    return method.name


def _runtime_name(runtime: Runtime) -> str:
    _declared(runtime, ("name", str), ("suffix", str))
    return runtime.name


def _device_name(device: Device) -> str:
    _declared(device, ("scheme", str))
    return device.scheme


def _metric_name(metric: Metric) -> str:
    _declared(metric, ("name", str))
    if metric.direction not in tuple(Direction):
        raise TypeError(f"{metric.name}: `direction` must be 'maximize' or 'minimize', but is {metric.direction!r}")
    return metric.name


def _task_name(task: TaskSource) -> str:
    _declared(task, ("name", str), ("model", str), ("data", str))
    return task.name


def _stem(path: Path) -> str:
    if path.suffix != ".toml" or not path.is_file():
        raise TypeError(f"'{path}' must be a TOML file that is there (is it among the package's data?)")
    return path.stem


CONTRACTS = {
    "methods": Contract(word="method", type=Method, name=_method_name),
    "runtimes": Contract(word="runtime", type=Runtime, name=_runtime_name),
    "devices": Contract(word="device", type=Device, name=_device_name),
    "hardware_profiles": Contract(word="hardware profile", type=Path, name=_stem),
    "metrics": Contract(word="metric", type=Metric, name=_metric_name),
    "tasks": Contract(word="task", type=TaskSource, name=_task_name),
    "searches": Contract(word="search", type=Path, name=_stem),
    "samplers": Contract(word="sampler", type=None, name=str),
    "reports": Contract(word="report", type=None, name=str),
}
"""By what follows `orchestrator_` in the hook's name."""
