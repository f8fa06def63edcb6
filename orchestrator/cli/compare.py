"""`orchestrate compare`."""

from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared
from orchestrator.cli.output import document

EXIT_INCONCLUSIVE = 3


@click.command(name="compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@shared.measuring
@click.option("--margin", default="2%", show_default=True, type=shared.SHARE, help="Differences up to this count as none.")
@click.option("--json", "as_json", is_flag=True, help="Ratio, interval, verdict and both measurements as one JSON object.")
@click.pass_context
def command(context: click.Context, /, a: Path, b: Path, samples: Path | None, as_json: bool, **values: Any) -> None:
    """Test whether B is faster than A on this target.

    Both are timed side by side, so that other load affects both:

        orchestrate compare original.onnx runs/.../recommended/model.onnx

    Exit code 0: faster, slower or the same; 3: the machine was too noisy to decide.
    """
    from orchestrator.api.measure import MeasureOptions, compare
    from orchestrator.report.measure_text import compared_lines, print_json

    result = compare(a, b, MeasureOptions(**values), samples=samples)
    if as_json:
        document(print_json(result.plain()))
    else:
        click.echo("\n".join(compared_lines(result)))
    if result.verdict == "inconclusive":
        context.exit(EXIT_INCONCLUSIVE)
