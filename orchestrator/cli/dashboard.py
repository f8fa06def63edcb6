"""`orchestrate dashboard`."""

import signal
from contextlib import suppress
from pathlib import Path

import click


@click.command(name="dashboard")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: one that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; others can see the study there.")
def command(run: Path, port: int, host: str) -> None:
    """Open a run's study in optuna-dashboard, during the search or afterwards. Ctrl-C ends it."""
    from orchestrator.api.dashboard import serve

    with suppress(KeyboardInterrupt):  # the way to end it
        for number in (signal.SIGINT, signal.SIGTERM):  # what a script starts in the background has Ctrl-C ignored
            signal.signal(number, signal.default_int_handler)
        serve(run, host=host, port=port, ready=lambda url: click.echo(f"the study is at {url} (Ctrl-C ends it)", err=True))
