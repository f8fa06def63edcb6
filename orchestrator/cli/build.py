"""`orchestrate build`."""

from pathlib import Path

import click

from orchestrator.cli import options as shared


@click.command(name="build")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default="built", show_default=True, metavar="DIR")
@shared.without_plugins
def command(recipe: Path, output: Path, without_plugins: tuple[str, ...]) -> None:
    """Rebuild one candidate from its recipe.toml. RECIPE is in each folder of front/ and in recommended/."""
    from orchestrator.api.search import build
    from orchestrator.cli.progress import progress

    with progress(quiet_stdout=False) as (_, observer):
        path = build(recipe, output, without_plugins=without_plugins, observer=observer)
    click.echo(path)
