"""A finite grid of really evaluated recipes for ResNet-20 on CIFAR-10, on which samplers are compared offline.

python bench/sampler_grid.py OUTPUT.jsonl     begins, or goes on where it stopped; about two hours on two cores

Every recipe is built, scored in onnxruntime on 2,000 validation images, and its latency is counted on a simulated Cortex-A72
(`orchestrate devices setup qemu-aarch64` first), which does not depend on what else this machine does. Recoveries are short: an
epoch is 10,000 of the training images. A line of the output is {"point", "quality", "latency_ms",
"size_bytes", ...}, the first that of the original; `bench/samplers.py` replays it. What is kept is `bench/sampler_grid.jsonl`.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

CASE = Path(__file__).parents[2] / "shared" / "cases" / "cifar10"
TRAIN, VALIDATION = 10_000, 2_000
TARGET = "raspberry-pi-4"

BLOCKS = (0, 1, 2, 3)
RATIOS = (0.0, 0.15, 0.3, 0.45, 0.6)
EPOCHS = (0.5, 1.0)
REWRITTEN = (False, True)
SCHEMES = ("u8s8", "s8s8")
FORMS = ("qdq", "qoperator")
CALIBRATIONS = ("minmax", "percentile")


def data() -> dict[str, object]:
    """The case's data, less of them."""
    sys.path.insert(0, str(CASE))
    import data as case  # type: ignore[import-not-found]
    from torch.utils.data import Subset

    splits = case.cifar10()
    images, labels = splits["validation"]
    return {"train": Subset(splits["train"], range(TRAIN)), "validation": (images[:VALIDATION], labels[:VALIDATION])}


def points() -> Iterator[dict[str, Any]]:
    """All points of the grid, those that share a network one after the other."""
    files = [
        {"graph": rewritten, "quantization": quantized}
        for rewritten in REWRITTEN
        for quantized in (None, *itertools.product(SCHEMES, FORMS, CALIBRATIONS))
    ]
    for blocks, ratio, epochs in itertools.product(BLOCKS, RATIOS, EPOCHS):
        if not blocks and not ratio and epochs != EPOCHS[0]:
            continue  # the original is not trained
        for file in files:
            yield {"blocks": blocks, "ratio": ratio, "epochs": epochs if blocks or ratio else None, **file}


def recipe(point: dict[str, Any]) -> Any:
    """A point as a recipe, every other parameter at its default."""
    from orchestrator.plugin import ParameterValue, Recipe, Step
    from orchestrator.plugin.parameters import checked
    from orchestrator.plugin.registry import Registry

    methods = Registry.discover().methods()

    def step(method: str, **parameters: ParameterValue) -> Step:
        found = methods[method]
        return Step(method=method, version=found.version, parameters=checked(method, found.parameters, parameters))

    steps = []
    if point["blocks"]:
        steps.append(step("block-removal", blocks=point["blocks"]))
    if point["ratio"]:
        steps.append(step("channel-pruning", ratio=point["ratio"], scope="sensitivity", layers="inner", importance="taylor"))
    if point["epochs"]:
        steps.append(step("distillation", epochs=point["epochs"], optimizer="sgd", label_weight=0.1))
    if point["graph"]:
        steps.append(step("graph-rewriting"))
    if point["quantization"]:
        scheme, form, calibration = point["quantization"]
        steps.append(step("static-int8", scheme=scheme, form=form, calibration=calibration))
    return Recipe(steps=tuple(steps))


def main(output: Path) -> None:
    """Evaluate what is not there yet."""
    from orchestrator.api.resolve import plan, simulated_device
    from orchestrator.measuring import scoring
    from orchestrator.measuring.timing import Plan
    from orchestrator.plugin.registry import Registry
    from orchestrator.study.engine import Engine
    from orchestrator.study.run.directory import RunDirectory
    from orchestrator.values.search import BudgetSpec, SearchOptions
    from orchestrator.values.task import TaskSpec

    scoring.BESIDE = Plan(max_seconds=0.1)  # the time on this machine is not the objective
    known = (
        {json.dumps(json.loads(line)["point"], sort_keys=True) for line in output.read_text().splitlines()}
        if output.exists()
        else set()
    )
    left = [point for point in points() if json.dumps(point, sort_keys=True) not in known]
    print(f"{len(known)} known, {len(left)} left", flush=True)
    registry = Registry.discover()
    names = ("block-removal", "channel-pruning", "distillation", "graph-rewriting", "static-int8")
    options = SearchOptions(
        target=TARGET,
        task=TaskSpec(model=f"{CASE}/model.py:resnet20", data=f"{Path(__file__).resolve()}:data"),
        threads=1,
        budget=BudgetSpec(trials=len(left)),
        methods=names,
    )
    request, runtime, devices = plan(options, registry)
    simulated = simulated_device(request.target, registry)
    with tempfile.TemporaryDirectory() as scratch, output.open("a") as file:
        run = RunDirectory.create(Path(scratch) / "run")
        engine = Engine(
            run, request, registry, runtime, devices, simulated=simulated, started=time.monotonic(), observer=lambda event: None
        )
        workshop = engine.builder(None)
        try:
            with closing(engine):
                engine.connect()
                state = engine.prepare(None, workshop)
                original = engine.baseline(state, workshop)
                for k, point in enumerate([None, *left] if not known else left):
                    made = (
                        original
                        if point is None
                        else engine.evaluate(recipe(point), state, workshop)
                        if recipe(point).steps
                        else None
                    )
                    if made is None:
                        continue
                    row = {
                        "point": point,
                        "id": made.id,
                        "failure": made.failure.message if made.failure else None,
                        "quality": made.quality.validation.value if made.quality else None,
                        "latency_ms": made.latency[0].median_ms if made.latency else None,
                        "evidence": made.latency[0].evidence if made.latency else None,
                        "host_ms": next((x.median_ms for x in made.latency if x.evidence == "measured-on-host"), None),
                        "size_bytes": made.artifact.size_bytes if made.artifact else None,
                        "macs": made.macs,
                        "seconds": made.seconds,
                    }
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    run.drop(made.id) if point is not None else None
                    print(k, row, flush=True)
        finally:
            workshop.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
