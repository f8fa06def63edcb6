"""`orchestrate report`."""

from pathlib import Path

import click


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "name", default="html", show_default=True, metavar="NAME", help="html, json, markdown, or a plugin's.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="[default: standard output].")
def command(run: Path, name: str, output: Path | None) -> None:
    """Write a run's report again, in another format. RUN is a run directory or its results.json."""
    from orchestrator.api.search import load_run
    from orchestrator.errors import InputError, PluginError, unknown
    from orchestrator.plugin.registry import Registry
    from orchestrator.report.formats import FORMATS
    from orchestrator.values.files import write_atomic

    formats = dict(FORMATS)
    if name not in formats:
        formats |= Registry.discover().reports()
    if name not in formats:
        raise InputError(unknown("format", name, formats))
    result = load_run(run)
    try:
        text = str(formats[name](result))
    except Exception as error:
        if name in FORMATS:
            raise
        raise PluginError(f"the plugin's format '{name}' could not write this run: {type(error).__name__}: {error}") from error
    if output is None:
        click.echo(text)
        return
    try:
        write_atomic(output, text)
    except OSError as error:
        raise InputError(f"--output '{output}' cannot be written: {error.strerror}") from None
