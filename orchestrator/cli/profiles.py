"""`orchestrate profiles`."""

from pathlib import Path

import click


@click.group(name="profiles")
def command() -> None:
    """List, show and check hardware profiles."""


@command.command(name="list")
def list_profiles() -> None:
    """The targets that are installed."""
    from orchestrator.errors import ProfileError
    from orchestrator.hardware.loading import load_profile
    from orchestrator.plugin.registry import Registry

    files = Registry.discover().profile_files()
    rows = [("host", "this machine, probed")]
    for name in sorted(files):
        try:
            profile = load_profile(str(files[name]), files)
        except ProfileError as error:
            rows.append((name, f"unusable: {error}"))
            continue
        names = ", ".join((profile.name, *profile.aliases))
        rows.append((names, f"{profile.title} ({profile.kind})"))
    width = max(len(name) for name, _ in rows)
    for name, title in rows:
        click.echo(f"{name:<{width}}  {title}")


@command.command(name="show")
@click.argument("name")
def show(name: str) -> None:
    """All figures of the profile NAME, with their sources, as TOML."""
    import tomli_w
    from pydantic import TypeAdapter

    from orchestrator.planning import profile_named
    from orchestrator.plugin.registry import Registry
    from orchestrator.values.profile import HardwareProfile

    profile = profile_named(name, Registry.discover())
    content = TypeAdapter(HardwareProfile).dump_python(profile, mode="json", exclude_none=True)
    click.echo(tomli_w.dumps(content), nl=False)


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Validate the profile in FILE."""
    from orchestrator.errors import InputError
    from orchestrator.hardware.loading import load_profile

    if file.suffix != ".toml":
        raise InputError(f"'{file}' is no .toml file; `orchestrate profiles list` names what is installed")
    profile = load_profile(str(file), {})
    click.echo(f"{file}: profile '{profile.name}' is valid")
