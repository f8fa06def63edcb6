"""Conformance tests of reports, and of plugins as a whole."""

from collections.abc import Callable
from typing import Any, ClassVar

from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing.problems import must, wrong
from orchestrator.plugin.testing.samples import sample_empty_run, sample_run, sample_start


class ReportTests:
    """Subclass it with your renderer: `class TestTable(ReportTests): render = staticmethod(render_table)`."""

    render: ClassVar[Callable[[Any], str]]

    def test_every_kind_of_run_is_rendered(self) -> None:
        """One with failures, and one in which nothing was tried; text, the same each time."""
        for what, run in (("a run", sample_run()), ("an empty run", sample_empty_run())):
            try:
                text, again = type(self).render(run), type(self).render(run)
            except Exception as error:  # a plugin's own fault
                wrong(
                    f"{what} cannot be rendered: {type(error).__name__}: {error}",
                    "figures, fronts and recommendations may be None",
                )
            must(isinstance(text, str) and text, f"`render` returned {text!r:.40} for {what}", "return the report as text")
            must(text == again, f"{what} is rendered otherwise the second time", "write no times of day")


class PluginTests:
    """A plugin as a whole: what the registry says of it, and that its events bear what a search tells them.

    Subclass it with your module: `class TestPlugin(PluginTests): plugin = my_module`.
    """

    plugin: ClassVar[Any]

    def test_plugin_can_be_registered(self) -> None:
        """Its hooks are spelt right, and answer with the right types."""
        registry = Registry()
        try:
            registry.register(self.plugin, "under test")
        except Exception as error:  # pluggy's own
            wrong(" ".join(str(error).split()), "see docs/plugins.md for the hooks and their arguments")
        reasons = [str(info.error) for info in registry.failed]
        must(not reasons, "; ".join(reasons), "see the hook's page in docs/plugins")
        brings = any(registry.brought()["under test"].values()) or registry.hooks("under test")
        must(brings, "it brings nothing", "mark the functions named orchestrator_... with @hookimpl")

    def test_events_bear_what_a_search_tells(self) -> None:
        """A search from its start to its end, with a candidate that failed."""
        registry = Registry()
        registry.register(self.plugin, "under test")
        registry.search_started(sample_start())
        for candidate in sample_run().candidates:
            registry.trial_finished(candidate)
        registry.search_ended(sample_run())
        notes = registry.notes
        must(not notes, "; ".join(notes), "latency and quality of failed candidates are missing: look before you read")
