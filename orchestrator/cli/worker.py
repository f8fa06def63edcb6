"""`orchestrate worker`."""

from pathlib import Path

import click

from orchestrator.cli.output import document


@click.command(name="worker")
@click.option("--storage", required=True, metavar="URL", help="The storage that the search was begun with.")
@click.option("--study", metavar="NAME", help="Which search, where the storage holds several that go on.")
@click.option("--artifacts", metavar="URL", help="Where this machine finds the search's files [default: as the search says].")
@click.option("--model", metavar="REF", help="The same model, where it lies here [default: as the search says].")
@click.option("--data", metavar="REF", help="The same data, where they lie here [default: as the search says].")
@click.option("--metric", metavar="file.py:function", help="The search's own metric, where its file lies here.")
@click.option("--loss", metavar="file.py:function", help="The search's own loss, where its file lies here.")
@click.option("--student", metavar="REF", help="The search's student network, where it lies here.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="A new folder to work in [default: temporary].")
@click.option("--device", metavar="DEVICE", help="A board like the search's own, to time on [default: this machine].")
@click.option(
    "--wait",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long to wait for a search to begin, and for one whose own process is gone to go on.",
)
@click.option("--json", "as_json", is_flag=True, help="What was done on stdout as one JSON document, all else on stderr.")
def command(wait: str, as_json: bool, **said: str | Path | None) -> None:
    """Serve a shared search from another machine (orchestrate search --storage URL leads it), until it is over.

    A machine of the leader's kind builds, scores and times candidates; another one builds them, and the leader times them.
    """
    import json
    from dataclasses import asdict

    from orchestrator.api.worker import WorkerOptions, work
    from orchestrator.cli.progress import progress
    from orchestrator.values.units import parse_seconds

    wait_s = 0.0 if wait.strip() in ("0", "0s") else parse_seconds(wait, "--wait")
    with progress(quiet_stdout=as_json) as (console, observer):
        done = work(WorkerOptions(**said, wait_s=wait_s), observer=observer)  # type: ignore[arg-type]  # click checks the types
    if as_json:
        document(json.dumps(asdict(done), indent=1))
    else:
        console.print(f"{done.candidates} candidates of {done.study}; {done.ended}", markup=False, highlight=False)
