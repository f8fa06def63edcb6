"""Findings on plugins: their packages, their contributions, and the reason if one cannot be used."""

from collections.abc import Iterator

from orchestrator.errors import PluginError
from orchestrator.plugin.registry import Registry
from orchestrator.values.distribution import DISTRIBUTION
from orchestrator.values.finding import Finding


def plugins() -> Iterator[Finding]:
    """Examine every plugin, and names that two of them contribute."""
    registry = Registry.discover()
    brought = registry.brought()
    for plugin in registry.plugins:
        who = f"{plugin.package} {plugin.version}"
        if plugin.error is None:
            text = f"{who}: {'; '.join(brought.get(plugin.name, ())) or 'hooks only'}"
            yield Finding(section="plugins", name=plugin.name, state="ok", text=text)
            continue
        ours = plugin.package == DISTRIBUTION
        fix = f"pip install --force-reinstall --no-deps {plugin.package}" if ours else _third_party(plugin.package, plugin.name)
        text = f"{who} cannot be used: {plugin.error}"
        yield Finding(section="plugins", name=plugin.name, state="broken", text=text, fix=fix, needed=ours)
    kinds = (registry.methods, registry.runtimes, registry.devices, registry.metrics, registry.tasks, registry.samplers)
    for kind in (*kinds, registry.search_files, registry.profile_files, registry.reports):
        try:
            kind()
        except PluginError as collision:
            yield Finding(section="plugins", name="names", state="broken", text=str(collision), needed=True)


def _third_party(package: str, name: str) -> str:
    return f"ask the maintainers of {package}, or go without: pip uninstall {package}, or --without-plugin {name}"
