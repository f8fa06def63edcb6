"""`orchestrate profiles`."""

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.output import document


@click.group(name="profiles")
def command() -> None:
    """List, show, check and characterize hardware profiles."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command.command(name="list")
@as_json
def list_profiles(as_json: bool) -> None:
    """List the installed targets, and the evidence of latencies for each."""
    import json

    from orchestrator.errors import ProfileError
    from orchestrator.hardware.profile_file import load_profile
    from orchestrator.plugin.registry import Registry
    from orchestrator.report.profile_text import evidence

    files = Registry.discover().profile_files()
    rows: list[dict[str, Any]] = [{"names": ["host"], "title": "this machine, probed", "evidence": "measured here"}]
    for name in sorted(files):
        try:
            profile = load_profile(str(files[name]), files)
        except ProfileError as error:
            rows.append({"names": [name], "problem": str(error)})
            continue
        rows.append(
            {
                "names": [profile.name, *profile.aliases],
                "title": profile.title,
                "kind": profile.kind,
                "evidence": evidence(profile),
            }
        )
    if as_json:
        document(json.dumps(rows, indent=1))
        return
    width = max(len(", ".join(row["names"])) for row in rows)
    for row in rows:
        kind = f" ({row['kind']})" if "kind" in row else ""
        what = f"unusable: {row['problem']}" if "problem" in row else f"{row['title']}{kind}; {row['evidence']}"
        click.echo(f"{', '.join(row['names']):<{width}}  {what}")


@command.command(name="show")
@click.argument("name")
@as_json
@click.option("--toml", "as_toml", is_flag=True, help="Print the file, to begin a profile of your own with.")
def show(name: str, as_json: bool, as_toml: bool) -> None:
    """Show the machine NAME (a target's name, alias or file), with the errors of its own estimates and all sources."""
    import json

    from orchestrator.api.resolve import profile_named
    from orchestrator.hardware.profile_tables import as_tables, as_text
    from orchestrator.plugin.registry import Registry
    from orchestrator.report.profile_text import profile_lines

    if as_json and as_toml:
        raise click.UsageError("--json and --toml do not go together; take one")
    profile = profile_named(name, Registry.discover())
    if as_json:
        document(json.dumps(as_tables(profile), indent=1))
    elif as_toml:
        click.echo(as_text(profile), nl=False)
    else:
        click.echo("\n".join(profile_lines(profile)))


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Validate the profile in FILE, and print every problem with its line.

    Exit code 2 if there is one.
    """
    from orchestrator.errors import InputError, ProfileError
    from orchestrator.hardware.profile_file import check_profile

    if file.suffix != ".toml":
        raise InputError(f"'{file}' is no .toml file; `orchestrate profiles list` names what is installed")
    problems = check_profile(file)
    if len(problems) == 1:
        raise ProfileError(problems[0])
    if problems:
        for problem in problems:
            click.echo(problem, err=True)
        raise ProfileError(f"{file} has {len(problems)} problems, listed above")
    click.echo(f"{file}: the profile is valid")


@command.command(name="characterize")
@click.option("--device", default="host", show_default=True, metavar="host|ssh://...", help="The machine to measure.")
@click.option("--runtime", default="onnxruntime", show_default=True, metavar="NAME", help="What runs the networks.")
@click.option("--threads", metavar="N,...", help="Numbers of threads to measure [default: 1, and one a fast core].")
@click.option("--seconds", type=float, default=200.0, show_default=True, help="The budget for measuring.")
@click.option("--name", metavar="NAME", help="Of the profile [default: from the machine's own].")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path(), metavar="FILE.toml|DIR", help="[default: NAME.toml, here]"
)
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything random starts from it.")
@as_json
def characterize(threads: str | None, output: Path, force: bool, as_json: bool, **said: Any) -> None:
    """Measure a machine by micro-benchmarks and write its profile.

    Tiny networks are timed in the runtime that will run yours, a latency model is fitted to them, and it is validated on small
    real networks that were not in the fit:

        orchestrate profiles characterize --device ssh://pi@raspberrypi

    Keep the machine idle meanwhile. The file can be used as a target: orchestrate search --target FILE.toml
    """
    from orchestrator.api.characterize import CharacterizeOptions
    from orchestrator.api.characterize import characterize as measured
    from orchestrator.report.characterize_text import characterization_lines, characterization_tables

    def progress(line: str) -> None:
        click.echo(line, err=True)

    options = CharacterizeOptions(threads=_counts(threads), **said)
    found = measured(options, output=output, overwrite=force, progress=progress)
    if as_json:
        import json

        document(json.dumps(characterization_tables(found), indent=1))
    else:
        click.echo("\n".join(characterization_lines(found)))


def _counts(text: str | None) -> tuple[int, ...]:
    """Parse `1,4` as (1, 4)."""
    from orchestrator.errors import InputError

    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--threads '{text}' cannot be read; write it like 1,4")
    return tuple(dict.fromkeys(int(part) for part in parts))
