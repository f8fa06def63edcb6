"""`orchestrate plugins`."""

from pathlib import Path

import click

from orchestrator.cli.output import document
from orchestrator.values.distribution import installed_version


@click.group(name="plugins")
def command() -> None:
    """List, check and create plugins."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_plugins(as_json: bool) -> None:
    """List every plugin with its package and version, its contributions, and the reason if it cannot be used."""
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
        document(json.dumps(rows, indent=1))
        return
    for plugin in registry.plugins:
        kinds = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in brought.get(plugin.name, {}).items()]
        if plugin.error is None:
            kinds += registry.hooks(plugin.name)
        what = f"cannot be used: {plugin.error}" if plugin.error else "; ".join(kinds) or "brings nothing"
        click.echo(f"{plugin.name}  ({plugin.package} {plugin.version})  {what}")


@command.command(name="check")
@click.argument("package")
@click.option("--device", metavar="REFERENCE", help="What a device of the package is attached by.  [default: its scheme]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check_plugin(package: str, device: str | None, as_json: bool) -> None:
    """Run the conformance kit over all contributions of PACKAGE, and print what fails and why.

    PACKAGE is an installed distribution or module, or a folder with a pyproject.toml, which is installed into a temporary
    folder and whose own tests run too. Exit codes: 0 all passed; 1 something fails; 2 there is no such package.
    """
    import json
    import sys
    from dataclasses import asdict

    from orchestrator.plugin.package_check import check_package

    found = check_package(package, device=device, tell=lambda line: click.echo(line, err=True))
    failed, skipped, passed = found.of("failed"), found.of("skipped"), found.of("passed")
    if as_json:
        document(json.dumps({**asdict(found), "ok": not failed}, indent=1))
    else:
        for check in failed:
            click.echo(f"FAILED  {check.of}, {check.check}: {check.problem}")
            if check.fix:
                click.echo(f"        fix: {check.fix}")
        for check in skipped:
            click.echo(f"skipped {check.of}, {check.check}: {check.problem.removeprefix('Skipped: ')}")
        click.echo(f"{found.package} {found.version}: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed else 0)


@command.command(name="new")
@click.argument("name")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="A new folder.  [default: NAME in the current folder]"
)
def new_plugin(name: str, output: Path | None) -> None:
    """Create a package with a working method, its test and its entry point."""
    from orchestrator.plugin.scaffold import write_package

    files = write_package(name, output, installed_version())
    for file in files:
        click.echo(f"wrote {file}")
    click.echo(
        f"next: pip install -e {files[0].parent} && pytest {files[0].parent} && orchestrate search --method {name} --trials 2"
    )
