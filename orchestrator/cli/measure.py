"""`orchestrate measure`."""

from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared
from orchestrator.cli.output import document


@click.command(name="measure")
@click.argument("model", type=click.Path(path_type=Path))
@shared.measuring
@click.option("--json", "as_json", is_flag=True, help="Print the values on stdout as one JSON object.")
def command(model: Path, samples: Path | None, as_json: bool, **values: Any) -> None:
    """Time one exported MODEL on a target.

    In new processes, until the interval is narrow enough:

        orchestrate measure model.onnx --device ssh://pi@raspberrypi

    The inputs are random unless --data is given.
    """
    from orchestrator.api.measure import MeasureOptions, measure
    from orchestrator.report.measure_text import measured_lines, print_json

    result = measure(model, MeasureOptions(**values), samples=samples)
    if as_json:
        document(print_json(result.plain()))
    else:
        click.echo("\n".join(measured_lines(result)))
