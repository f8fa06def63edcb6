"""`orchestrate doctor`."""

from itertools import groupby
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import document

if TYPE_CHECKING:
    from orchestrator.diagnosis import Diagnosis

COLOURS = {"ok": "green", "warning": "yellow", "missing": "yellow", "broken": "red"}


@click.command(name="doctor")
@click.option(
    "--target", default="host", show_default=True, metavar="NAME|FILE.toml", help="The target of the search to be sure of."
)
@click.option("--json", "as_json", is_flag=True, help="All findings on stdout as one JSON object.")
def command(target: str, as_json: bool) -> int:
    """Check what works on this machine, and what to install for the rest.

    Libraries are imported, each runtime runs a tiny model, every target is looked at. Exit code 0 when a search for the target
    would run, 1 when it would not:

        orchestrate doctor --target raspberry-pi
    """
    from orchestrator.diagnosis import diagnose

    found = diagnose(target=target)
    if as_json:
        import json

        document(json.dumps(found.plain(), indent=1))
    else:
        _show(found)
    return 0 if found.works else 1


def _show(found: "Diagnosis") -> None:
    from orchestrator.report.formatting import line  # what plugins say is not trusted with a terminal

    width = max(len(finding.name) for finding in found.findings if finding.section != "targets")
    for section, findings in groupby(found.findings, key=lambda finding: finding.section):
        click.secho(section, bold=True)
        for finding in findings:
            state = click.style(f"{finding.state:<7}", fg=COLOURS[finding.state])
            click.echo(f"  {state}  {line(finding.name):<{width}}  {line(finding.text)}")
            if finding.fix:
                click.echo(f"  {'':<7}  {'':<{width}}  -> {line(finding.fix)}")
    click.echo()
    if found.works:
        click.echo(f"A search for {found.target} would run.")
        return
    click.echo(f"A search for {found.target} would not run:")
    for finding in found.obstacles:
        click.echo("  " + line(f"{finding.name}: {finding.text}" + (f" -> {finding.fix}" if finding.fix else "")))
