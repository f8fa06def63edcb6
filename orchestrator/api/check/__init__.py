"""The CI gate: tests whether a model has regressed against another one."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.api.check.inputs import RECIPE, ModelInput, agreed, read_side
from orchestrator.api.check.quality import NO_DATA, judge_quality, judging_split, splits_of
from orchestrator.api.check.settings import CheckOptions
from orchestrator.api.check.size import judge_size
from orchestrator.api.check.timing import judge_time_and_memory
from orchestrator.api.measure import MeasureOptions, open_bench
from orchestrator.building.metric_lookup import find_metric
from orchestrator.errors import InputError
from orchestrator.values.check import CheckResult, Criterion
from orchestrator.values.device import HOST
from orchestrator.values.search import with_values

ORDER = ("latency", "quality", "size", "peak-memory")


def check(baseline: str | Path, candidate: str | Path, options: CheckOptions | None = None, **said: Any) -> CheckResult:
    """Test whether a model is slower, worse or larger than another one, beyond the limits and beyond chance.

    Both are timed here, side by side, in rounds of new processes, and scored on the same examples. So a noisy machine, or
    another one than last time, does not matter.

    Args:
        baseline: A model file, a candidate's folder (`front/<id>`), or a run directory (its recommended model).
        candidate: Likewise.
        options: The options; or give fields by name: `check("old.onnx", "new.onnx", data="arrays.npz", max_slowdown=0.1)`.
        **said: Fields of the options.

    Returns:
        Every criterion with its values, limit and verdict, and the overall `verdict` and `exit_code`.

    Raises:
        InputError: An option cannot be used, the two inputs contradict each other, or a model cannot be run.
        EnvironmentFailure: The device is unreachable or in use.
    """
    begin = time.monotonic()
    options = _said(options, said)
    theirs, ours = read_side(Path(baseline), "--baseline"), read_side(Path(candidate), "--candidate")

    def chosen(name: str) -> Any:
        given = getattr(options, name)
        return agreed(name, theirs, ours) if given is None else given

    target, runtime, threads, data, metric = map(chosen, ("target", "runtime", "threads", "data", "metric"))
    measure = MeasureOptions(
        target=target or HOST,
        device=options.device,
        runtime=runtime,
        threads=threads,
        data=data,
        input_shapes=options.input_shapes,
        seed=options.seed,
        without_plugins=options.without_plugins,
    )
    criteria = [] if options.max_growth is None else [judge_size(ours.model, theirs.model, options.max_growth)]
    scored = options.max_drop is not None and data is not None
    if options.max_drop is not None and data is None:
        criteria.append(
            Criterion(
                name="quality", verdict="not judged", reason=NO_DATA, unit=metric or "", limit=options.max_drop, warning=NO_DATA
            )
        )
    timed = options.max_slowdown is not None or options.max_memory_growth is not None
    where: dict[str, Any] = {"target": measure.target, "device": "", "runtime": runtime or "", "threads": threads or 0}
    if scored or timed:
        found, where = _run(ours, theirs, options, measure, metric, scored=scored, timed=timed)
        criteria += found
    if not any(criterion.verdict != "not judged" for criterion in criteria):
        raise InputError("nothing is left to judge: every criterion is off or lacks what it needs")
    return CheckResult(
        baseline=str(theirs.model),
        candidate=str(ours.model),
        criteria=tuple(sorted(criteria, key=lambda criterion: ORDER.index(criterion.name))),
        noisy=options.noisy,
        seconds=time.monotonic() - begin,
        **where,
    )


def _run(
    ours: ModelInput,
    theirs: ModelInput,
    options: CheckOptions,
    measure: MeasureOptions,
    metric: str | None,
    *,
    scored: bool,
    timed: bool,
) -> tuple[list[Criterion], dict[str, Any]]:
    """Return the criteria that need running the models, and the description of the machine."""
    criteria: Sequence[Criterion] = []
    recipe = None if options.data is not None else next((str(s.given / RECIPE) for s in (theirs, ours) if s.said), None)
    splits = None if measure.data is None else splits_of(measure.data, recipe)
    with open_bench([ours.model, theirs.model], measure, splits) as bench:
        if scored and splits is not None and options.max_drop is not None:
            split = judging_split(splits)
            judge = find_metric(metric, split.labels, bench.registry, split.name)
            with tempfile.TemporaryDirectory() as scratch:
                criteria = [judge_quality(bench, split, judge, options.max_drop, Path(scratch))]
        if timed:
            criteria = [*criteria, *judge_time_and_memory(bench, options)]
        target = bench.evaluator.target
        where = {
            "target": target.profile.name,
            "device": target.simulator or target.device,
            "runtime": target.runtime,
            "threads": target.threads if target.simulator else bench.evaluator.threads,
            "environment": bench.environment if bench.simulation is None else bench.simulation.device.environment(),
        }
    return list(criteria), where


def _said(options: CheckOptions | None, said: dict[str, Any]) -> CheckOptions:
    options = with_values(options or CheckOptions(), said)
    for name in ("max_slowdown", "max_drop", "max_growth", "max_memory_growth"):
        if (value := getattr(options, name)) is not None and not value >= 0:
            raise InputError(f"{name} must be 0 or more, but got {value}")
    if not options.budget_s > 0:
        raise InputError(f"the budget must be more than 0 seconds, but got {options.budget_s}")
    if options.noisy not in (None, "pass", "fail"):
        raise InputError(f"noisy must be 'pass' or 'fail', but got {options.noisy!r}")
    return options
