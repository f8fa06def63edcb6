"""`orchestrate resume`."""

from pathlib import Path

import click

from orchestrator.cli import options as shared


@click.command(name="resume")
@click.argument("run", type=click.Path(path_type=Path))
@shared.budget
@click.option("--json", "as_json", is_flag=True, help="The results on stdout as one JSON document, all else on stderr.")
@click.pass_context
def command(context: click.Context, run: Path, trials: int | None, timeout: str | None, as_json: bool) -> None:
    """Go on with a run that was stopped, or that is to get a larger budget. RUN is its directory."""
    from orchestrator.api import resume
    from orchestrator.cli.progress import progress
    from orchestrator.report.results import render_json
    from orchestrator.report.terminal import print_summary

    with progress(quiet_stdout=as_json) as (console, observer):
        result = resume(run, trials=trials, timeout_s=shared.seconds(timeout), observer=observer)
    if as_json:
        click.echo(render_json(result))
    else:
        print_summary(result, console, run)
    if result.recommended is None:
        context.exit(1)
