"""`orchestrate worker`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared
from orchestrator.cli.output import document


@click.command(name="worker")
@click.option("--storage", required=True, metavar="URL", help="The storage of the search.")
@click.option("--study", metavar="NAME", help="The search to join, if the storage holds several.")
@click.option("--artifacts", metavar="URL", help="The exchange of the search, as this machine sees it [default: the search's].")
@click.option("--model", metavar="REF", help="The same model on this machine [default: the search's reference].")
@click.option("--data", metavar="REF", help="The same data on this machine [default: the search's reference].")
@click.option("--metric", metavar="file.py:function", help="The search's own metric on this machine.")
@click.option("--loss", metavar="file.py:function", help="The search's own loss on this machine.")
@click.option("--student", metavar="REF", help="The search's student network on this machine.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="A new folder to work in [default: temporary].")
@click.option("--device", metavar="DEVICE", help="A board like the search's own, to time on [default: this machine].")
@click.option(
    "--wait",
    "wait_s",
    default="10m",
    show_default=True,
    type=shared.WAIT,
    help="Time to wait for a search to start, and for one whose leader is gone to be resumed.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result on stdout as one JSON document, everything else on stderr."
)
def command(as_json: bool, **values: Any) -> None:
    """Serve a shared search from another machine (orchestrate search --storage URL leads it), until it is over.

    A machine of the leader's class builds, scores and times candidates; another one builds them, and the leader times them.
    """
    from orchestrator.api.worker import WorkerOptions, run_worker
    from orchestrator.cli.progress import progress
    from orchestrator.values.search import with_values

    options = with_values(WorkerOptions(storage=values.pop("storage")), shared.given(values))
    with progress(quiet_stdout=as_json) as (console, observer):
        result = run_worker(options, observer=observer)
    if as_json:
        document(json.dumps(asdict(result), indent=1))
    else:
        console.print(f"{result.candidates} candidates of {result.study}; {result.ended}", markup=False, highlight=False)
