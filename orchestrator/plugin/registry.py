"""The one door: plugins are found by entry point, registered one by one, and asked through pluggy."""

import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from orchestrator.errors import PluginError, unknown
from orchestrator.plugin import hookspecs
from orchestrator.plugin.device import Device
from orchestrator.plugin.method import Method, OnnxMethod, TorchMethod, TorchToOnnxMethod
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.parameters import Choice, Number
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.task import TaskSource
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginInfo:
    """A plugin that was found: who brought it, and why it is not there if it is not."""

    name: str
    package: str
    version: str
    error: str | None = None


class Registry:
    """All plugins of a run. Made anew for each run; there is no global one."""

    def __init__(self, plugins: Sequence[PluginInfo], manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self.plugins = tuple(plugins)

    @classmethod
    def discover(cls, *, without: Iterable[str] = ()) -> "Registry":
        """Load every entry point of the group but those named; one that fails is reported in `plugins` and left out.

        Raises:
            PluginError: a name in `without` is not installed.
        """
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        entries = sorted(importlib.metadata.entry_points(group=hookspecs.GROUP), key=lambda e: (e.name, e.value))
        names = {entry.name for entry in entries}
        for name in set(without):
            if name not in names:
                raise PluginError(unknown("plugin", name, names))
        infos: list[PluginInfo] = []
        for entry in entries:
            name = entry.name
            if name in without:
                continue
            package = entry.dist.name if entry.dist else name
            version = entry.dist.version if entry.dist else "?"
            taken = next((info for info in infos if info.name == name), None)
            if taken is not None:
                if (taken.package, taken.version) != (package, version):
                    reason = f"its entry point's name '{name}' is taken by {taken.package} {taken.version}"
                    infos.append(PluginInfo(name=f"{name} ({package})", package=package, version=version, error=reason))
                continue
            try:
                _register(manager, name, entry.load())
            except (KeyboardInterrupt, MemoryError):
                raise
            except BaseException as error:  # a third party's module may raise anything, SystemExit too
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                infos.append(PluginInfo(name=name, package=package, version=version, error=reason))
                continue
            infos.append(PluginInfo(name=name, package=package, version=version))
        return cls(infos, manager)

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin from Python, as `discover` would from an entry point."""
        _register(self._manager, name, plugin)
        self.plugins = (*self.plugins, PluginInfo(name=name, package=name, version="?"))

    @property
    def failed(self) -> tuple[PluginInfo, ...]:
        """The plugins that could not be used."""
        return tuple(p for p in self.plugins if p.error)

    def methods(self) -> dict[str, Method]:
        """All methods by name."""
        return self._named("methods")

    def runtimes(self) -> dict[str, Runtime]:
        """All runtimes by name."""
        return self._named("runtimes")

    def devices(self) -> dict[str, Device]:
        """All devices by scheme."""
        return self._named("devices")

    def metrics(self) -> dict[str, Metric]:
        """All metrics by name."""
        return self._named("metrics")

    def tasks(self) -> dict[str, TaskSource]:
        """All ready-made tasks by name."""
        return self._named("tasks")

    def profile_files(self) -> dict[str, Path]:
        """The hardware profile files by stem."""
        return self._named("hardware_profiles")

    def search_files(self) -> dict[str, Path]:
        """The ready-made search files by stem."""
        return self._named("searches")

    def samplers(self) -> dict[str, Any]:
        """Sampler factories by name."""
        return self._named("samplers")

    def reports(self) -> dict[str, Any]:
        """Report renderers by name."""
        return self._named("reports")

    def load_model(self, source: str) -> Any:
        """A plugin's answer to a model reference, or None."""
        return self._first("orchestrator_load_model", source=source)

    def probe_host(self) -> Any:
        """A plugin's profile of this machine, or None."""
        return self._first("orchestrator_probe_host")

    def recipe_objections(self, recipe: Recipe, target: Target) -> list[str]:
        """Why the plugins call a recipe illegal; empty where nobody does."""
        answers = self._answers("orchestrator_check_recipe", recipe=recipe, target=target)
        return [str(reason) for _, reasons in answers for reason in reasons or ()]

    def trial_finished(self, trial: CandidateResult) -> None:
        """Tell every plugin; one that raises is logged, and neither the others nor the search notice."""
        self._answers("orchestrator_trial_finished", trial=trial)

    def commands(self, cli: Any) -> None:
        """Let the plugins add commands."""
        self._manager.hook.orchestrator_commands(cli=cli)

    def brought(self) -> dict[str, list[str]]:
        """What each plugin contributes, in words, by the plugin's name."""
        found: dict[str, list[str]] = {}
        for kind in CONTRIBUTIONS:
            for plugin, items in self._contributions(kind):
                found.setdefault(plugin, []).append(f"{kind.replace('_', ' ')}: {', '.join(items)}")
        return found

    @property
    def loads_models(self) -> bool:
        """Whether any plugin answers model references of its own."""
        return bool(self._manager.hook.orchestrator_load_model.get_hookimpls())

    def _answers(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """(plugin name, answer) in the order of registration; a plugin that raises is marked as failed and left out."""
        answers = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                answers.append((impl.plugin_name, impl.function(*(arguments[name] for name in impl.argnames))))
            except (Exception, SystemExit) as error:  # a third party's code
                logger.debug("plugin %s failed in %s", impl.plugin_name, hook, exc_info=True)
                self._fail(impl.plugin_name, f"{hook} raised {type(error).__name__}: {error}".splitlines()[0])
        return answers

    def _first(self, hook: str, **arguments: Any) -> Any:
        """The first answer that is not None, the plugin registered last asked first."""
        answers = self._answers(hook, **arguments)
        return next((answer for _, answer in reversed(answers) if answer is not None), None)

    def _fail(self, name: str, reason: str) -> None:
        self.plugins = tuple(
            PluginInfo(name=p.name, package=p.package, version=p.version, error=reason) if p.name == name else p
            for p in self.plugins
        )

    def _contributions(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """(plugin, {name: contribution}); a plugin whose answer breaks the contract is marked as failed and left out."""
        hook = f"orchestrator_{kind}"
        contract, name_of = CONTRIBUTIONS[kind]
        found = []
        for plugin, answer in self._answers(hook):
            if contract is None:
                if isinstance(answer, dict):
                    found.append((plugin, answer))
                else:
                    self._fail(plugin, f"{hook} must return a dict by name, but got {answer!r:.80}")
                continue
            if not isinstance(answer, list | tuple) or not all(isinstance(item, contract) for item in answer):
                self._fail(plugin, f"{hook} must return a list of {contract.__name__} instances, but got {answer!r:.80}")
                continue
            try:
                found.append((plugin, {name_of(item): item for item in answer}))
            except (AttributeError, TypeError) as error:
                self._fail(plugin, f"{hook}: {error}")
        return found

    def _named(self, kind: str) -> dict[str, Any]:
        """All contributions of a kind.

        Raises:
            PluginError: two plugins bring one name.
        """
        owners: dict[str, str] = {}
        found: dict[str, Any] = {}
        for plugin, items in self._contributions(kind):
            for name, item in items.items():
                if name in owners:
                    contract = CONTRIBUTIONS[kind][0]
                    what = contract.__name__ if contract else kind
                    both = f"plugins '{owners[name]}' and '{plugin}'"
                    raise PluginError(f"{both} both bring {what} '{name}'; switch one off with --without-plugin")
                owners[name], found[name] = plugin, item
        return found


def _method_name(method: Method) -> str:
    """The method's name; a declaration that is incomplete is the plugin's fault.

    Raises:
        TypeError: says what is missing.
    """
    if not isinstance(method, TorchMethod | TorchToOnnxMethod | OnnxMethod):
        raise TypeError(f"{type(method).__name__} must be a TorchMethod, a TorchToOnnxMethod or an OnnxMethod")
    for attribute, kind in (("name", str), ("version", int), ("family", str)):
        if not isinstance(getattr(method, attribute, None), kind):
            raise TypeError(f"{type(method).__name__} must declare `{attribute}`, {kind.__name__}")
    for parameter in method.parameters:
        if not isinstance(parameter, Choice | Number):
            raise TypeError(f"{method.name}: parameters must be Choice or Number, but got {type(parameter).__name__}")
    return method.name


def _register(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
    """Register and validate one plugin; on any failure it is not registered."""
    if isinstance(plugin, type):
        plugin = plugin()
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError):
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        raise


def _named(item: Any) -> str:
    return str(item.name)


CONTRIBUTIONS: dict[str, tuple[type[Any] | None, Callable[[Any], str]]] = {
    "methods": (Method, _method_name),
    "runtimes": (Runtime, _named),
    "devices": (Device, lambda device: str(device.scheme)),
    "hardware_profiles": (Path, lambda path: str(path.stem)),
    "metrics": (Metric, _named),
    "tasks": (TaskSource, _named),
    "searches": (Path, lambda path: str(path.stem)),
    "samplers": (None, str),
    "reports": (None, str),
}
"""Each hook that contributes: the contract of its answers (None: a dict by name), and what they are called by."""
