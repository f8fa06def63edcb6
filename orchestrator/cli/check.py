"""`orchestrate check`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import options as shared
from orchestrator.cli.output import document, write_output
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.api.check.settings import CheckOptions
    from orchestrator.values.check import CheckResult


@click.command(name="check")
@click.option("--baseline", metavar="OLD", help="An ONNX file, a candidate's folder (front/<id>) or a run directory.")
@click.option("--candidate", metavar="NEW", help="Likewise: what must not have become worse.")
@click.option(
    "--data",
    metavar="REF",
    help="file.py:factory or arrays.npz to judge the quality by [default: the recipe's, else not judged].",
)
@click.option("--metric", metavar="NAME|FILE.py:FUNCTION", help="Quality metric [default: the recipe's, else accuracy].")
@click.option("--target", metavar="NAME|FILE.toml", help="Hardware profile [default: the recipe's, else host].")
@click.option(
    "--device", metavar="DEVICE", help="host, ssh://user@board[:port] or qemu:CPU [default: the profile's, else this host]."
)
@click.option("--runtime", metavar="NAME", help="What runs the models [default: the recipe's, else the profile's first].")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of one inference [default: as the runtime].")
@click.option("--max-slowdown", metavar="SHARE", help="Time may grow by this, or off [default: 5%].")
@click.option("--max-drop", metavar="SHARE", help="Quality may drop by this, in points of the metric, or off [default: 0.5%].")
@click.option("--max-growth", metavar="SHARE", help="The file may grow by this, or off [default: 1%].")
@click.option("--max-memory-growth", metavar="SHARE", help="Peak memory may grow by this [default: off].")
@click.option(
    "--noisy", type=click.Choice(["pass", "fail"]), help="What counts where noise hides the truth [default: exit code 3]."
)
@click.option("--budget", metavar="TIME", help="Time to measure, where the first rounds do not tell [default: 2m].")
@shared.input_shapes
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Order of blocks, random inputs.")
@shared.without_plugins
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML, a test case a criterion.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Every criterion on stdout as one JSON object.")
@click.pass_context
def command(context: click.Context, /, junit: Path | None, markdown: Path | None, as_json: bool, **values: Any) -> None:
    """Test whether a model has regressed against another one: a gate for CI.

    Both are timed here, side by side, and scored on the same examples:

        orchestrate check --baseline old.onnx --candidate new.onnx --data arrays.npz

    Defaults come from [tool.orchestrator.check] in the nearest pyproject.toml, then from the recipes of the two models.

    Exit code 0: no regression; 1: a regression; 3: the machine was too noisy to decide.
    """
    from orchestrator.api.check import check

    baseline, candidate, options = _options(values)
    for option, path in (("--junit", junit), ("--markdown", markdown)):
        _writable(option, path)
    result = check(baseline, candidate, options)
    _show(result, as_json)
    _write(result, junit, markdown)
    context.exit(result.exit_code)


def _options(arguments: dict[str, Any]) -> "tuple[Path, Path, CheckOptions]":
    """Return the two inputs and the options: an option wins over pyproject.toml."""
    from orchestrator.api.check.settings import CheckOptions, limit, read_table
    from orchestrator.values.units import parse_seconds

    values = read_table(Path.cwd())
    for name in ("max_slowdown", "max_drop", "max_growth", "max_memory_growth"):
        if (text := arguments.pop(name)) is not None:
            values[name] = limit(text, f"--{name.replace('_', '-')}", share=name != "max_drop")
    if (text := arguments.pop("budget")) is not None:
        values["budget_s"] = parse_seconds(text, "--budget")
    values |= {name: value for name, value in arguments.items() if value is not None}
    sides = []
    for name in ("baseline", "candidate"):
        path = values.pop(name, None)
        if path is None:
            raise InputError(f"--{name} is missing: an ONNX file, a candidate's folder or a run directory")
        sides.append(Path(path))
    return sides[0], sides[1], CheckOptions(**values)


def _writable(option: str, path: Path | None) -> None:
    """Fail before the measurement if a file cannot be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} '{path}' cannot be written: {error.strerror}") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option} '{path}' cannot be written: it is a folder, or not yours to write")


def _show(result: "CheckResult", as_json: bool) -> None:
    from orchestrator.report.annotations import annotations
    from orchestrator.report.check_text import LEAST_CONSOLE, print_checked
    from orchestrator.report.measure_text import print_json

    if as_json:
        document(print_json(result.plain()))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal and console.width < LEAST_CONSOLE:
            console = Console(highlight=False, width=LEAST_CONSOLE)
        print_checked(result, console)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(result):
            click.echo(line, err=as_json)


def _write(result: "CheckResult", junit: Path | None, markdown: Path | None) -> None:
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if junit is None and markdown is None and not summary:
        return
    from orchestrator.plugin.registry import Registry

    registry = Registry.discover()
    if junit is not None:
        write_output(junit, registry.render("junit", result), "--junit")
    if markdown is None and not summary:
        return
    text = registry.render("markdown", result)
    if markdown is not None:
        write_output(markdown, text, "--markdown")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
