"""`orchestrate compare-runs`."""

import json
from pathlib import Path

import click

from orchestrator.cli.output import document, write_output


@click.command(name="compare-runs")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(a: Path, b: Path, html: Path | None, as_json: bool) -> None:
    """Compare two runs. A and B are run directories, or their results.json."""
    from orchestrator.api.search import compare_runs
    from orchestrator.plugin.registry import Registry
    from orchestrator.report.run_diff_text import print_comparison

    found = compare_runs(a, b)
    if html is not None:
        write_output(html, Registry.discover().render("html", found), "--html")
    if as_json:
        document(json.dumps(found.plain(), indent=2))
        return
    from rich.console import Console

    print_comparison(found, Console())
