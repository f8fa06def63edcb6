"""The registry of plugins: found by entry point, registered one by one, and called through pluggy.

A plugin is registered as a whole or not at all: one that raises, declares a wrong hook, returns a wrong type, uses a taken name
or needs another orchestrator is left out with all its contributions, and `failed` contains the reason.
"""

import copy
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from orchestrator.errors import InputError, PluginError, unknown
from orchestrator.plugin import hookspecs
from orchestrator.plugin.contributions import CONTRACTS, WrongAnswerError, answered, collected
from orchestrator.plugin.device import Device
from orchestrator.plugin.discovery import PluginInfo, installed, unmet
from orchestrator.plugin.family_order import families_in_order
from orchestrator.plugin.method import Method
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.report_format import ReportFormat
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.runtime_step import with_runtimes
from orchestrator.plugin.task import TaskSource
from orchestrator.values.check import CheckResult
from orchestrator.values.events import SearchStarted
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, RunResult
from orchestrator.values.target import Target

if TYPE_CHECKING:
    from orchestrator.report.run_diff import RunComparison

logger = logging.getLogger(__name__)
__all__ = ["PluginInfo", "Registry"]

STOPPING = (KeyboardInterrupt, MemoryError)
"""Not a plugin's fault; all else that its code raises is, even what is no `Exception` (SystemExit, a Rust panic)."""


class Registry:
    """All plugins of a run; each run has a registry of its own."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._brought: dict[str, dict[str, dict[str, Any]]] = {}
        self._contested: dict[tuple[str, str], str] = {}
        self._silent: dict[tuple[str, str], str] = {}
        self._deaf: dict[str, str] = {}
        self.plugins: tuple[PluginInfo, ...] = ()

    @classmethod
    def discover(cls, *, without: Iterable[str] = (), strict: bool = True) -> "Registry":
        """Load every entry point of the group but those named; one that fails is reported in `plugins` and left out.

        Args:
            without: Names of plugins, or of third parties' packages.
            strict: True if the user names them now; those of an earlier run may have been uninstalled.

        Raises:
            PluginError: A name in `without` is not installed, and `strict`.
        """
        registry = cls()
        for found in installed(without=without, strict=strict):
            info = found.info
            if found.entry is not None:
                reason = unmet(found.entry.dist)
                try:
                    if reason is None:
                        reason = registry._add(found.entry.load(), info)
                except STOPPING:
                    raise
                except BaseException as error:  # a third party's module may raise anything, SystemExit too
                    reason = _line(error)
                info = replace(info, error=reason)
            registry.plugins = (*registry.plugins, info)
        return registry

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin from Python, as `discover` would from an entry point.

        Raises:
            PluginValidationError: it declares a hook that there is not, or a wrong argument.
        """
        info = PluginInfo(name=name, package=name, version="?")
        self.plugins = (*self.plugins, replace(info, error=self._add(plugin, info)))

    def _add(self, plugin: object, info: PluginInfo) -> str | None:
        """Register one plugin and collect its contributions; return the reason why it cannot be used, if it cannot."""
        plugin = _registered(self._manager, info.name, plugin)
        reason: str | None = "its contributions were not collected"
        try:
            brought = {kind: found for kind in CONTRACTS if (found := self._asked(plugin, kind, info)) is not None}
            reason = self._taken(brought, info) or self._disordered(brought)
            if reason is None:
                self._brought[info.name] = brought
        except TypeError as error:
            reason = str(error)
        except STOPPING:
            raise
        except BaseException as error:  # a third party's code, which may raise anything when it is looked at
            reason = _line(error)
        finally:
            if reason is not None:
                self._manager.unregister(plugin)
        return reason

    def _asked(self, plugin: object, kind: str, info: PluginInfo) -> dict[str, Any] | None:
        """Return a plugin's contributions of one kind by name; None if it does not implement that hook."""
        hook = f"orchestrator_{kind}"
        for impl in (i for i in getattr(self._manager.hook, hook).get_hookimpls() if i.plugin is plugin):
            try:
                answer = impl.function()
            except STOPPING:
                raise
            except BaseException as error:  # a third party's code
                logger.debug("plugin %s failed in %s", info.name, hook, exc_info=True)
                raise TypeError(f"{hook} raised {_line(error)}") from error
            return collected(kind, answer)
        return None

    def _disordered(self, brought: dict[str, dict[str, Any]]) -> str | None:
        """Return the contradiction between the order of a plugin's methods and that of the others, if there is one."""
        if not brought.get("methods"):
            return None
        try:
            families_in_order({**self._named("methods"), **brought["methods"]})
        except PluginError as error:
            return str(error)
        return None

    def _taken(self, brought: dict[str, dict[str, Any]], info: PluginInfo) -> str | None:
        """Return the reason why a plugin cannot be used if it provides a name that another one has."""
        reason = None
        for kind, items in brought.items():
            for owner in self.plugins:
                for name in items.keys() & self._brought.get(owner.name, {}).get(kind, {}).keys():
                    what = f"{CONTRACTS[kind].word} '{name}'"
                    reason = reason or f"it brings the {what}, which plugin '{owner.name}' ({owner.package}) brings too"
                    self._contested[kind, name] = f"plugins '{owner.name}' and '{info.name}' both bring the {what}"
        return reason

    def settle(self, kind: str, *names: str) -> None:
        """Check that the names that the user gave are not provided by two plugins each.

        Raises:
            PluginError: A name is provided by two plugins; names both.
        """
        for name in names:
            if (kind, name) in self._contested:
                raise PluginError(f"{self._contested[kind, name]}; switch one off with --without-plugin")

    @property
    def failed(self) -> tuple[PluginInfo, ...]:
        """The plugins that could not be used."""
        return tuple(p for p in self.plugins if p.error)

    def methods(self) -> dict[str, Method]:
        """Return all methods by name; among them a last step for each runtime, where a search tries several."""
        return with_runtimes(self._named("methods"), self.runtimes().values())

    def runtimes(self) -> dict[str, Runtime]:
        """Return all runtimes by name."""
        return self._named("runtimes")

    def devices(self) -> dict[str, Device]:
        """Return all devices by scheme."""
        return self._named("devices")

    def metrics(self) -> dict[str, Metric]:
        """Return all metrics by name."""
        return self._named("metrics")

    def tasks(self) -> dict[str, TaskSource]:
        """Return all ready-made tasks by name."""
        return self._named("tasks")

    def profile_files(self) -> dict[str, Path]:
        """Return the hardware profile files by stem."""
        return self._named("hardware_profiles")

    def search_files(self) -> dict[str, Path]:
        """Return the ready-made search files by stem."""
        return self._named("searches")

    def samplers(self) -> dict[str, Any]:
        """Return all sampler factories by name."""
        return self._named("samplers")

    def reports(self) -> dict[str, ReportFormat]:
        """Return report formats by name; a plain function renders a run."""
        formats = self._named("reports")
        return {name: f if isinstance(f, ReportFormat) else ReportFormat(run=f) for name, f in formats.items()}

    def render(self, name: str, content: "RunResult | CheckResult | RunComparison") -> str:
        """Return a report in a format.

        Raises:
            InputError: No plugin provides the format for such a document.
            PluginError: The format failed.
        """
        kind = {"RunResult": "run", "CheckResult": "check"}.get(type(content).__name__, "comparison")
        functions = {key: function for key, form in self.reports().items() if (function := getattr(form, kind)) is not None}
        if name not in functions:
            raise InputError(unknown("format", name, functions))
        try:
            return str(functions[name](content))
        except Exception as error:
            raise PluginError(f"the format '{name}' could not render this {kind}: {type(error).__name__}: {error}") from error

    def load_model(self, source: str) -> Any:
        """Return the model that a plugin loads for a reference, or None."""
        return self._first("orchestrator_load_model", source=source)

    def probe_host(self) -> Any:
        """Return a plugin's profile of this machine, or None."""
        return self._first("orchestrator_probe_host")

    def recipe_objections(self, recipe: Recipe, target: Target) -> list[str]:
        """Return the plugins' reasons why a recipe is illegal; empty if it is legal."""
        answers = self._answers("orchestrator_check_recipe", recipe=recipe, target=target)
        return [reason for reasons in answers for reason in reasons or ()]

    def search_started(self, search: SearchStarted) -> None:
        """Send the event to every plugin that handles it."""
        self._event("orchestrator_search_started", search=search)

    def trial_finished(self, trial: CandidateResult) -> None:
        """Send the event to every plugin that handles it."""
        self._event("orchestrator_trial_finished", trial=trial)

    def search_ended(self, result: RunResult) -> None:
        """Send the event to every plugin that handles it."""
        self._event("orchestrator_search_ended", result=result)

    @property
    def notes(self) -> list[str]:
        """Notes on plugins that raised or returned a wrong type in a query, check or event."""
        return [*self._silent.values(), *self._deaf.values()]

    def commands(self, cli: Any) -> None:
        """Let the plugins add commands."""
        self._answers("orchestrator_commands", cli=cli)

    def brought(self) -> dict[str, dict[str, list[str]]]:
        """`{plugin: {kind: [name, ...]}}` of the plugins that can be used."""
        return {plugin: {kind: list(items) for kind, items in kinds.items() if items} for plugin, kinds in self._brought.items()}

    def contributions(self, kind: str) -> dict[str, Any]:
        """Return all plugins' contributions of a kind ("methods", "hardware_profiles", ...) by name."""
        return self._named(kind)

    def plugin(self, name: str) -> object:
        """Return the plugin's module or object; None if there is none that can be used."""
        return self._manager.get_plugin(name)

    def hooks(self, plugin: str) -> list[str]:
        """Return the names of the query, check and event hooks that a plugin implements."""
        contributing = {f"orchestrator_{kind}" for kind in CONTRACTS}
        callers = self._manager.get_hookcallers(self._manager.get_plugin(plugin)) or ()
        return sorted(caller.name for caller in callers if caller.name not in contributing)

    @property
    def loads_models(self) -> bool:
        """True if any plugin loads model references of its own."""
        return bool(self._manager.hook.orchestrator_load_model.get_hookimpls())

    def _answers(self, hook: str, **arguments: Any) -> list[Any]:
        """Return all answers in the order of registration; one that raises or returns a wrong type is skipped with a note."""
        answers = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                answers.append(answered(hook, impl.function(*(arguments[name] for name in impl.argnames))))
            except STOPPING:
                raise
            except BaseException as error:  # a third party's code
                logger.debug("plugin %s failed in %s", impl.plugin_name, hook, exc_info=True)
                why = str(error) if isinstance(error, WrongAnswerError) else f"{hook} raised {_line(error)}"
                self._silent.setdefault((impl.plugin_name, hook), f"plugin '{impl.plugin_name}' was ignored: {why}")
        return answers

    def _event(self, hook: str, **arguments: Any) -> None:
        """Send an event to every plugin; one that raises gets no further events, without effect on the others or the search.

        Each gets a copy, so that it cannot change what the others or the results contain.
        """
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            name = impl.plugin_name
            if name in self._deaf:
                continue
            try:
                impl.function(*(copy.deepcopy(arguments[argument]) for argument in impl.argnames))
            except STOPPING:
                raise
            except BaseException as error:  # a third party's code
                logger.debug("plugin %s failed in %s", name, hook, exc_info=True)
                self._deaf[name] = f"plugin '{name}' gets no further events: {hook} raised {_line(error)}"

    def _first(self, hook: str, **arguments: Any) -> Any:
        """Return the first answer that is not None, of the plugin registered last first."""
        return next((answer for answer in reversed(self._answers(hook, **arguments)) if answer is not None), None)

    def _named(self, kind: str) -> dict[str, Any]:
        return {name: item for kinds in self._brought.values() for name, item in kinds.get(kind, {}).items()}


def _line(error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):  # several lines, the reason in the last
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _registered(manager: pluggy.PluginManager, name: str, plugin: object) -> object:
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
    return plugin
