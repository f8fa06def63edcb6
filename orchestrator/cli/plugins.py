"""`orchestrate plugins`."""

import click


@click.group(name="plugins")
def command() -> None:
    """See which plugins are installed."""


@command.command(name="list")
def list_plugins() -> None:
    """Every plugin with its package and version, what it brings, and why it cannot be used if it cannot."""
    from orchestrator.plugin.registry import Registry

    registry = Registry.discover()
    brought = registry.brought()
    for plugin in registry.plugins:
        what = f"cannot be used: {plugin.error}" if plugin.error else "; ".join(brought.get(plugin.name, ())) or "hooks only"
        click.echo(f"{plugin.name}  ({plugin.package} {plugin.version})  {what}")
