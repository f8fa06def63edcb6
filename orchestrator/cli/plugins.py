"""`orchestrate plugins`."""

import click


@click.group(name="plugins")
def command() -> None:
    """See which plugins are installed, check one, begin one."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_plugins(as_json: bool) -> None:
    """Every plugin with its package and version, what it brings, and why it cannot be used if it cannot."""
    import json

    from orchestrator.plugin.registry import Registry

    registry = Registry.discover()
    brought = registry.brought()
    if as_json:
        rows = [
            {
                "name": plugin.name,
                "package": plugin.package,
                "version": plugin.version,
                "usable": plugin.error is None,
                "reason": plugin.error,
                "brings": brought.get(plugin.name, {}),
                "hooks": [] if plugin.error else registry.hooks(plugin.name),
            }
            for plugin in registry.plugins
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    for plugin in registry.plugins:
        kinds = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in brought.get(plugin.name, {}).items()]
        if plugin.error is None:
            kinds += registry.hooks(plugin.name)
        what = f"cannot be used: {plugin.error}" if plugin.error else "; ".join(kinds) or "brings nothing"
        click.echo(f"{plugin.name}  ({plugin.package} {plugin.version})  {what}")
