"""Display, results and exit code of `orchestrate search` and `orchestrate resume`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import document

if TYPE_CHECKING:
    from orchestrator.api.search_targets import Targets
    from orchestrator.values.results import RunResult

EXIT_NOTHING_MEETS_THE_LIMITS = 1


def one(run: "Callable[..., RunResult]", as_json: bool) -> "list[RunResult]":
    """Run for one target, and print its results; `run` takes an `observer`."""
    result = _shown(run, as_json)
    if as_json:
        from orchestrator.report.results import render_json

        document(render_json(result))
    return [result]


def several(targets: "Targets", as_json: bool) -> "list[RunResult]":
    """Run for each target, and print the results of each as soon as they are available; as JSON a list at the end."""
    results: list[RunResult] = []
    for k in range(len(targets.runs)):
        results.append(_shown(partial(targets.search, k, tuple(results)), as_json))
    if as_json:
        import json

        from orchestrator.report.results import render_json

        document(json.dumps([json.loads(render_json(result)) for result in results], indent=1))
    return results


def exit_with(context: click.Context, results: "Sequence[RunResult]") -> None:
    """Exit with code 1 if a target has no model that satisfies its limits."""
    if any(result.recommended is None for result in results):
        context.exit(EXIT_NOTHING_MEETS_THE_LIMITS)


def _shown(run: "Callable[..., RunResult]", as_json: bool) -> "RunResult":
    from orchestrator.cli.progress import progress
    from orchestrator.report.terminal import print_summary

    with progress(quiet_stdout=as_json) as (console, observer):
        result = run(observer=observer)
    if not as_json:
        print_summary(result, console, Path(result.search["run"]))
    return result
