"""`orchestrate report`."""

from pathlib import Path

import click

from orchestrator.cli.output import write_output


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format", "name", default="html", show_default=True, metavar="NAME", help="html, json, markdown, csv, or another plugin's."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="[default: standard output].")
def command(run: Path, name: str, output: Path | None) -> None:
    """Write a run's report in another format. RUN is a run directory or its results.json."""
    from orchestrator.api.search import load_run
    from orchestrator.plugin.registry import Registry

    text = Registry.discover().render(name, load_run(run))
    if output is None:
        click.echo(text)
    else:
        write_output(output, text, "--output")
