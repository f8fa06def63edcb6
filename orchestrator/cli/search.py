"""`orchestrate search`."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared
from orchestrator.values.search import SearchOptions, with_values


@click.command(name="search")
@click.option("--target", "targets", multiple=True, metavar="NAME|FILE.toml", help="Hardware profile [default: host, probed].")
@click.option("--model", metavar="REF", help="file.py:factory, package.module:factory or model.onnx [default: the digits task].")
@click.option("--data", metavar="REF", help="file.py:factory, package.module:factory or arrays.npz [default: the digits task].")
@click.option("--metric", metavar="NAME|file.py:function", help="Quality [default: accuracy, without labels fidelity].")
@click.option("--loss", metavar="NAME|file.py:function", help="Training loss f(outputs, labels) [default: cross entropy].")
@click.option("--student", metavar="REF", help="file.py:factory of a student network to distil into.")
@click.option("--search", default="quick", show_default=True, metavar="NAME|FILE.toml", help="Ready-made search.")
@shared.budget
@click.option("--max-latency", "max_latency_ms", type=shared.MILLISECONDS, help="Limit, e.g. 20ms.")
@click.option("--max-size", "max_size_bytes", type=shared.BYTES, help="Limit of the file, e.g. 500kB.")
@click.option(
    "--max-memory", "max_memory_bytes", type=shared.BYTES, help="Limit of peak memory, e.g. 64MB [default: the profile's]."
)
@click.option(
    "--max-drop", type=shared.SHARE, metavar="POINTS", help="Limit of the loss of the metric against the original, e.g. 1%."
)
@click.option("--min-quality", type=shared.SHARE, metavar="VALUE", help="Limit of the metric, e.g. 0.9.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this method (repeatable).")
@click.option("--without", "without_methods", multiple=True, metavar="NAME", help="Not this method (repeatable).")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME", help="This runtime; several are tried in one search (repeatable)."
)
@shared.without_plugins
@click.option(
    "--device",
    metavar="DEVICE",
    help="Where candidates are timed (host, ssh://user@board, qemu:CPU); several boards with commas [default: the profile's].",
)
@click.option(
    "--wait-for-device", "wait_for_device_s", type=shared.WAIT, help="Time to wait for a board that is lost, or 0 [default: 5m]."
)
@click.option("--threads", type=int, metavar="N", help="Threads of one inference [default: the profile's].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="The run directory [default: a new one in runs/].")
@click.option(
    "--warm-start",
    "warm_start",
    multiple=True,
    metavar="RUN",
    help="Start with the models of this earlier run on the same model, for any target (repeatable).",
)
@click.option(
    "--storage",
    metavar="URL",
    help="Share the search with `orchestrate worker` on other machines: postgresql://..., mysql://..., sqlite:///FILE, "
    "grpc://HOST:PORT, journal:FILE [default: not shared].",
)
@click.option(
    "--artifacts",
    metavar="URL",
    help="Where a shared search exchanges files: a shared folder, s3://BUCKET/PREFIX [default: in the run directory].",
)
@click.option(
    "--worker-timeout",
    "worker_timeout_s",
    type=shared.SECONDS,
    help="A worker without a heartbeat for this long counts as dead [default: 60s].",
)
@click.option(
    "--store",
    metavar="DIR|none",
    help="Folder of results that later runs reuse [default: ORCHESTRATE_STORE, else a folder in the user's cache].",
)
@shared.input_shapes
@click.option("--dry-run", is_flag=True, help="Check everything, print the search space and the plan, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="The results on stdout as one JSON document, all else on stderr.")
@click.pass_context
def command(
    context: click.Context, /, targets: tuple[str, ...], output: Path | None, dry_run: bool, as_json: bool, **values: Any
) -> None:
    """Find the Pareto-optimal models for a target.

    Without --model and --data it runs on a built-in task (handwritten digits), as a demonstration:

        orchestrate search --target raspberry-pi

    Exit code 0: done, and a model that satisfies the limits is recommended; 1: done, and none satisfies them.
    """
    targets = targets or ("host",)
    options = with_values(SearchOptions(target=targets[0]), shared.given(values))
    if dry_run:
        for target in targets:
            _dry_run(replace(options, target=target))
        return
    from orchestrator.cli import run_display

    if len(targets) == 1:
        from orchestrator.api.search import search

        results = run_display.one(partial(search, options, output=output), as_json)
    else:
        from orchestrator.api.search_targets import Targets

        results = run_display.several(Targets.begin(options, targets, output), as_json)
    run_display.exit_with(context, results)


def _dry_run(options: SearchOptions) -> None:
    from orchestrator.api.search import preview

    request, state, space = preview(options)
    task, target = state.task, request.target
    how = f"simulated on {target.simulator}" if target.simulator else "estimated"
    where = "" if target.is_device else f" ({how}; timed on {target.device} too)"
    runtimes = " or ".join((target.runtime, *target.alternatives))
    lines = [
        f"task      {task.name}: {task.metric}, examples " + ", ".join(f"{n} {c}" for n, c in task.examples.items()),
        f"target    {target.profile.title}: {runtimes}, {target.threads} threads{where}",
        "limits    " + (", ".join(f"{n} {v:g}" for n, v in _set(request.limits)) or "none"),
        f"budget    {request.budget.trials or 'any number of'} trials, "
        + (f"{request.budget.timeout_s:.0f} s" if request.budget.timeout_s else "no limit of time"),
        f"sampler   {request.preset.sampler}, seed {request.options.seed}",
        f"space     {space.size()} recipes",
        *(f"          {line}" for line in space.describe()),
        *(f"refused   {offer.method}: {offer.refused}" for offer in state.offers if offer.refused),
        *(f"note      {note}" for note in state.notes),
        *(f"starts    {recipe}" for recipe in space.starters(request.budget.trials)),
    ]
    click.echo("\n".join(lines))


def _set(limits: Any) -> list[tuple[str, float]]:
    return [(name, value) for name, value in asdict(limits).items() if value is not None]
