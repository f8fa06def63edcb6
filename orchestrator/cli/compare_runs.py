"""`orchestrate compare-runs`."""

import json
from pathlib import Path

import click

from orchestrator.cli.output import document


@click.command(name="compare-runs")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(a: Path, b: Path, html: Path | None, as_json: bool) -> None:
    """What changed between two runs. A and B are run directories, or their results.json."""
    from orchestrator.api.search import compare_runs
    from orchestrator.errors import InputError
    from orchestrator.report.run_diff_page import print_comparison, render_comparison
    from orchestrator.values.files import write_atomic

    found = compare_runs(a, b)
    if html is not None:
        try:
            write_atomic(html, render_comparison(found))
        except OSError as error:
            raise InputError(f"--html '{html}' cannot be written: {error.strerror}") from None
    if as_json:
        document(json.dumps(found.plain(), indent=2))
        return
    from rich.console import Console

    print_comparison(found, Console())
