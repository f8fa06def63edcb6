"""`orchestrate estimate`."""

from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared
from orchestrator.cli.output import document

SHOWN = 12


@click.command(name="estimate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="NAME|FILE.toml", help="Hardware profile (orchestrate profiles list).")
@click.option("--runtime", metavar="NAME", help="What would run it [default: the first that the profile has constants for].")
@click.option("--threads", type=int, metavar="N", help="Threads of one inference [default: the profile's].")
@click.option(
    "--precision", metavar="fp32|fp16|int8", help="As if all arithmetic were done in it [default: as the graph has it]."
)
@shared.input_shapes
@shared.without_plugins
@click.option("--json", "as_json", is_flag=True, help="Print the values on stdout as one JSON object.")
def command(model: Path, as_json: bool, **values: Any) -> None:
    """Compute a MODEL's latency on a target that is not here.

    From its ONNX graph and the target's profile, with its error band, without running anything:

        orchestrate estimate model.onnx --target raspberry-pi-4
    """
    from orchestrator.api.estimate import estimate
    from orchestrator.report.estimate_text import estimated_lines
    from orchestrator.report.measure_text import print_json

    found = estimate(model, **values)
    if as_json:
        document(print_json({"model": str(model), **found.plain()}))
    else:
        click.echo("\n".join(estimated_lines(model, found, SHOWN)))
