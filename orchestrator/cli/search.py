"""`orchestrate search`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import options as shared


@click.command(name="search")
@click.option("--target", "targets", multiple=True, metavar="NAME|FILE.toml", help="Hardware profile [default: host, probed].")
@click.option("--model", metavar="REF", help="file.py:factory, package.module:factory or model.onnx [default: the digits task].")
@click.option("--data", metavar="REF", help="file.py:factory, package.module:factory or arrays.npz [default: the digits task].")
@click.option("--metric", metavar="NAME|file.py:function", help="Quality [default: accuracy, without labels fidelity].")
@click.option("--loss", metavar="NAME|file.py:function", help="Training loss f(outputs, labels) [default: cross entropy].")
@click.option("--student", metavar="REF", help="file.py:factory of a student network to distil into.")
@click.option("--search", "search_name", default="quick", show_default=True, metavar="NAME|FILE.toml", help="Ready-made search.")
@shared.budget
@click.option("--max-latency", metavar="TIME", help="Limit, e.g. 20ms.")
@click.option("--max-size", metavar="SIZE", help="Limit of the file, e.g. 500kB.")
@click.option("--max-memory", metavar="SIZE", help="Limit of peak memory, e.g. 64MB [default: the profile's].")
@click.option("--max-drop", metavar="POINTS", help="Limit of the loss of the metric against the original, e.g. 1%.")
@click.option("--min-quality", metavar="VALUE", help="Limit of the metric, e.g. 0.9.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this method (repeatable).")
@click.option("--without", "without_methods", multiple=True, metavar="NAME", help="Not this method (repeatable).")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME", help="This runtime; several are tried in one search (repeatable)."
)
@click.option("--without-plugin", "without_plugins", multiple=True, metavar="NAME", help="Do not load this plugin (repeatable).")
@click.option(
    "--device",
    metavar="DEVICE",
    help="Where candidates are timed (host, ssh://user@board, qemu:CPU); several boards with commas [default: the profile's].",
)
@click.option("--wait-for-device", metavar="TIME", help="How long to wait for a board that is lost; 0: not [default: 5m].")
@click.option("--threads", type=int, metavar="N", help="Threads of one inference [default: the profile's].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything random starts from it.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="The run directory [default: a new one in runs/].")
@click.option(
    "--warm-start",
    "warm_start",
    multiple=True,
    metavar="RUN",
    help="Begin with the models of this earlier run on the same model, for whatever target (repeatable).",
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
    help="Where a shared search exchanges files: a folder that all see, s3://BUCKET/PREFIX [default: in the run directory].",
)
@click.option("--worker-timeout", metavar="TIME", help="A worker that is silent for so long is taken for dead [default: 60s].")
@click.option(
    "--store",
    metavar="DIR|none",
    help="Where results are kept for later runs [default: ORCHESTRATE_STORE, else a folder in the user's cache].",
)
@click.option("--input-shape", "input_shape", multiple=True, metavar="NAME=1,3,32,32", help="Sizes of dynamic axes (repeatable).")
@click.option("--dry-run", is_flag=True, help="Check everything, print the search space and the plan, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="The results on stdout as one JSON document, all else on stderr.")
@click.pass_context
def command(context: click.Context, /, targets: tuple[str, ...], **said: Any) -> None:
    """Find the Pareto-optimal models for a target.

    Without --model and --data it runs on a built-in task (handwritten digits), so that you see what you get:

        orchestrate search --target raspberry-pi

    Exit code 0: done, and a model that keeps the limits is recommended; 1: done, and none keeps them.
    """
    from dataclasses import replace

    from orchestrator.api.resolve import SearchOptions

    targets = targets or ("host",)
    limits = shared.limits(**{k: said[k] for k in ("max_latency", "max_size", "max_memory", "max_drop", "min_quality")})
    options = SearchOptions(
        target=targets[0],
        model=said["model"],
        data=said["data"],
        metric=said["metric"],
        loss=said["loss"],
        student=said["student"],
        search=said["search_name"],
        trials=said["trials"],
        timeout_s=shared.seconds(said["timeout"]),
        limits=limits,
        methods=said["methods"],
        without_methods=said["without_methods"],
        runtimes=said["runtimes"],
        without_plugins=said["without_plugins"],
        device=said["device"],
        threads=said["threads"],
        seed=said["seed"],
        storage=said["storage"],
        artifacts=said["artifacts"],
        worker_timeout_s=_worker_timeout(said["worker_timeout"]),
        input_shapes=shared.input_shapes(said["input_shape"]),
        wait_for_device_s=_waiting(said["wait_for_device"]),
        store=said["store"],
        warm_start=said["warm_start"],
    )
    if said["dry_run"]:
        for target in targets:
            _dry_run(replace(options, target=target))
        return
    from orchestrator.cli import run_display

    if len(targets) == 1:
        from orchestrator.api.search import search

        results = run_display.one(partial(search, options, output=said["output"]), said["as_json"])
    else:
        from orchestrator.api.search_targets import Targets

        results = run_display.several(Targets.begin(options, targets, said["output"]), said["as_json"])
    run_display.exit_with(context, results)


def _waiting(text: str | None) -> float:
    from orchestrator.api.resolve import SearchOptions
    from orchestrator.values.units import parse_seconds

    if text is None:
        return SearchOptions().wait_for_device_s
    return 0.0 if text.strip() in ("0", "0s") else parse_seconds(text, "--wait-for-device")


def _worker_timeout(text: str | None) -> float:
    from orchestrator.api.resolve import SearchOptions
    from orchestrator.values.units import parse_seconds

    return SearchOptions().worker_timeout_s if text is None else parse_seconds(text, "--worker-timeout")


def _dry_run(options: Any) -> None:
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
        f"budget    {request.trials or 'any number of'} trials, "
        + (f"{request.timeout_s:.0f} s" if request.timeout_s else "no limit of time"),
        f"sampler   {request.sampler}, seed {request.seed}",
        f"space     {space.size()} recipes",
        *(f"          {line}" for line in space.describe()),
        *(f"refused   {offer.method}: {offer.refused}" for offer in state.offers if offer.refused),
        *(f"note      {note}" for note in state.notes),
        *(f"starts    {recipe}" for recipe in space.starters(request.trials)),
    ]
    click.echo("\n".join(lines))


def _set(limits: Any) -> list[tuple[str, float]]:
    from dataclasses import asdict

    return [(name, value) for name, value in asdict(limits).items() if value is not None]
