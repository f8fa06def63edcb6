"""`orchestrate resume`."""

from functools import partial
from pathlib import Path

import click

from orchestrator.cli import options as shared


@click.command(name="resume")
@click.argument("run", type=click.Path(path_type=Path))
@shared.budget
@click.option("--json", "as_json", is_flag=True, help="The results on stdout as one JSON document, all else on stderr.")
@click.pass_context
def command(context: click.Context, run: Path, trials: int | None, timeout_s: float | None, as_json: bool) -> None:
    """Continue a run that was stopped, or extend its budget. RUN is its directory, or that of several targets."""
    from orchestrator.api.search_targets import Targets
    from orchestrator.cli import run_display

    if Targets.holds(run):
        targets = Targets.open(run)
        targets.extend(trials=trials, timeout_s=timeout_s)
        results = run_display.several(targets, as_json)
    else:
        from orchestrator.api.search import resume

        results = run_display.one(partial(resume, run, trials=trials, timeout_s=timeout_s), as_json)
    run_display.exit_with(context, results)
