"""`orchestrate report`."""

from pathlib import Path

import click


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "name", default="html", show_default=True, metavar="NAME", help="html, json, markdown, or a plugin's.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="[default: standard output].")
def command(run: Path, name: str, output: Path | None) -> None:
    """Write a run's report again, in another format. RUN is a run directory or its results.json."""
    from orchestrator.api import load_run
    from orchestrator.errors import InputError, unknown
    from orchestrator.plugin.registry import Registry
    from orchestrator.report.formats import FORMATS
    from orchestrator.values.files import write_atomic

    formats = dict(FORMATS)
    if name not in formats:
        formats |= Registry.discover().reports()
    if name not in formats:
        raise InputError(unknown("format", name, formats))
    text = formats[name](load_run(run))
    if output is None:
        click.echo(text)
        return
    try:
        write_atomic(output, text)
    except OSError as error:
        raise InputError(f"--output '{output}' cannot be written: {error.strerror}") from None
