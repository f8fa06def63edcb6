"""Task set-up before the first candidate: the task is loaded, checked and described, and its data are written for scoring."""

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.building import network, training
from orchestrator.building.builder import Builder, Report
from orchestrator.building.cache_keys import (
    FORM,
    architecture_of,
    code_digest,
    digest_of,
    package_digest,
    sources_digest,
    this_machine,
    versions,
)
from orchestrator.building.metric_lookup import NOT_CLASSES, find_metric
from orchestrator.building.paths import builds, laid_out, sketches
from orchestrator.building.protocol import PrepareRequest
from orchestrator.building.references import beside, call_factory, load_function
from orchestrator.building.rungs import Judge, RungSchedule
from orchestrator.building.step_cache import Identity
from orchestrator.building.store import Store
from orchestrator.building.task import LoadedTask, digest_of_training_data, digest_of_weights, load_task
from orchestrator.errors import InputError, PluginError, unknown
from orchestrator.measuring.model_info import ModelInfo, inspect
from orchestrator.measuring.quality import required_arguments
from orchestrator.plugin.method import Method, Need
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.direction import Direction
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

SHARE_FOR_RECOVERY = 0.55
RECOVERIES_A_TRIAL = 0.5  # the others only quantize, or share the training of an earlier one
RECOVERIES_IN_A_RUN = 8  # where the trials are not limited: few that are long enough to be of use
UNTIMED_EPOCHS = (1.0, 4.0)
LEAST_SHARE = 0.25
MOST_EPOCHS = 40.0
LOSSES = {"cross-entropy": "cross_entropy", "mse": "mse_loss", "l1": "l1_loss"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task ready to be worked on.

    Attributes:
        sketcher: Builds without training.
        ladder: Looks at the trainings of `builder`.
    """

    task: LoadedTask
    metric: Metric
    methods: Mapping[str, Method]
    builder: Builder
    sketcher: Builder
    ladder: RungSchedule
    runtime: Runtime
    target: Target
    notes: tuple[str, ...]
    later_notes: list[str]
    judge: str | None

    def new_notes(self) -> tuple[str, ...]:
        """Return the notes since the last call."""
        found = tuple(self.later_notes)
        self.later_notes.clear()
        return found

    def inspect(self, graph: Path) -> ModelInfo:
        """Return the facts about an exported model that its file contains, in the form that the runtime loads.

        Raises:
            Refused, MethodError: the runtime cannot make its form of it.
        """
        file = self.runtime.convert(graph, graph.parent)
        return inspect(graph, file, self.target, {spec.name: (1, *spec.shape) for spec in self.task.inputs})

    def labels(self, split: str) -> np.ndarray | None:
        """Return the labels of a split."""
        return self.task.splits[split].labels


def prepare(request: PrepareRequest, report: Report) -> Prepared:
    """Load everything that the request names.

    Raises:
        InputError: whatever is wrong with the user's input, in one line.
    """
    registry = Registry.discover(without=request.without_plugins, strict=False)  # the main process has looked at the names
    report("loading the model and the data", 0.0)
    task = load_task(request.task, registry)
    metric = find_metric(request.task.metric, task.splits["validation"].labels, registry, "validation")
    if metric.name == "accuracy" and task.classes is None:
        raise InputError(task.label_problem or NOT_CLASSES)
    loss = _loss(request.task.loss, task)
    methods = _methods(registry, request.methods)
    workspace = Path(request.workspace)
    _lay_out(task, workspace / "data")
    notes = [f"plugin {p.name} ({p.package} {p.version}) could not be used: {p.error}" for p in registry.failed]
    trains = any(Need.TRAIN in method.needs for method in methods.values())
    later: list[str] = []
    store = None if request.store is None else Store(Path(request.store), bound=request.store_bytes, note=later.append)
    identity = None if store is None else _identity(request, task, metric)
    epochs = request.budget.epochs
    if epochs is None:
        try:
            epochs = _epochs(task, request, identity, store) if trains else UNTIMED_EPOCHS
        except Exception as error:  # networks fail in training in as many ways as there are networks
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            notes.append(f"the network cannot be trained here: {text}")
            epochs = (0.0, 0.0)
    description = TaskDescription(
        spec=task.spec,
        kind="onnx" if task.module is None else "torch",
        inputs=task.inputs,
        outputs=task.outputs,
        classes=task.classes,
        metric=metric.name,
        direction=Direction(metric.direction),
        examples={name: split.count for name, split in task.splits.items()},
        labelled=tuple(name for name, split in task.splits.items() if split.take(range(1))[1] is not None),
        digest=task.digest,
        weights_digest=task.weights_digest,
        data_digest=task.data_digest,
    )
    student = _student(request.task.student, registry, task, request.seed)
    builders = partial(
        Builder,
        task,
        description,
        request.target,
        methods,
        loss=loss,
        epochs=epochs,
        seed=request.seed,
        report=report,
        student=student,
        remembered=builds(workspace) / "remembered",
        store=store,
        identity=identity,
        answers={
            "task_loss": sources_digest(request.task.loss, beside(request.task.loss)),
            "student": None
            if student is None
            else [sources_digest(request.task.student, beside(request.task.student)), _weights(student)],
        },
    )
    if "test" not in task.splits:
        notes.append("the data have no test split: the front is judged by the validation split that chose it")
    elif metric.needs_labels and task.splits["test"].labels is None:
        notes.append(f"the test split has no labels, which '{metric.name}' needs: the front is judged by validation alone")
    ladder = RungSchedule(Judge(task, metric), Direction(metric.direction))
    return Prepared(
        task=task,
        metric=metric,
        methods=methods,
        builder=builders(workspace=builds(workspace), ladder=ladder),
        sketcher=builders(workspace=sketches(workspace), trains=False),
        ladder=ladder,
        runtime=registry.runtimes()[request.target.runtime],
        target=request.target,
        notes=tuple(notes),
        later_notes=later,
        judge=None if identity is None else digest_of(identity.judge),
    )


def _identity(request: PrepareRequest, task: LoadedTask, metric: Metric) -> Identity:
    """Return the identity of the user's task in keys: weights and data, and the code that they belong to."""
    model = task.module
    parts = [] if model is None else list(model.modules())
    return Identity(
        task=[
            task.weights_digest,
            digest_of_training_data(task.splits),
            [sources_digest(reference, beside(reference)) for reference in (request.task.model, request.task.data)],
            architecture_of(parts),
            [[spec.name, spec.dtype, spec.shape] for spec in (*task.inputs, *task.outputs)],
            task.classes,
        ],
        judge=[
            sources_digest(request.task.metric, beside(request.task.metric)),
            metric.name,
            code_digest(type(metric).__module__),
        ],
        classes=tuple(sorted({type(part).__module__ for part in parts})),
    )


def _weights(make: Callable[[], nn.Module]) -> str:
    return digest_of_weights(make())


def _student(reference: str | None, registry: Registry, task: LoadedTask, seed: int) -> Callable[[], nn.Module] | None:
    """Return the factory of the user's student network, after calling it once.

    Raises:
        InputError: the factory fails or returns something else, or the student's outputs are not the original's in form.
    """
    if reference is None:
        return None
    if task.module is None:
        raise InputError("--student needs a torch network as --model: an ONNX file cannot teach it in training")

    def make() -> nn.Module:
        training.seed_everything(seed)  # its first weights are random, and must be the same each time
        answer: Any = registry.load_model(reference)
        if answer is None:
            answer = call_factory(reference, "--student")
        if not isinstance(answer, nn.Module):
            raise InputError(f"--student '{reference}' must return a torch.nn.Module, but got a {type(answer).__name__}")
        return answer.cpu().eval()

    inputs = network.as_tensors(task.splits["validation"].take(range(1))[0])
    try:
        with torch.no_grad():
            shapes = [
                {name: tuple(t.shape[1:]) for name, t in network.tensors(network.forward(model, inputs)).items()}
                for model in (task.module, make())
            ]
    except InputError:
        raise
    except Exception as error:  # the user's forward may raise anything
        text = (str(error).strip().splitlines() or ["(no message)"])[0]
        raise InputError(f"--student '{reference}' fails on the data: {type(error).__name__}: {text}") from error
    if shapes[0] != shapes[1]:
        raise InputError(f"--student '{reference}' must give outputs of the model's shapes {shapes[0]}, but gave {shapes[1]}")
    return make


def _loss(name: str | None, task: LoadedTask) -> Callable[[Any, Tensor], Tensor] | None:
    """Return the training loss; by default cross entropy for class labels, else none."""
    if name is None:
        return _builtin_loss("cross-entropy") if task.classes is not None else None
    if ":" not in name:
        if name not in LOSSES:
            raise InputError(unknown("loss", name, LOSSES) + "; or give file.py:function")
        if name == "cross-entropy" and task.label_problem:
            raise InputError(task.label_problem)
        return _builtin_loss(name)
    function = load_function(name, "--loss")
    if required_arguments(function) != 2:
        raise InputError(f"--loss {name} must take (outputs, labels)")

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        # Mixed precision is this product's choice, not the user's: their loss sees float32.
        value: Tensor = function(outputs.float() if isinstance(outputs, Tensor) else outputs, labels)
        return value

    _try_loss(name, loss, task)
    return loss


def _try_loss(name: str, loss: Callable[[Any, Tensor], Tensor], task: LoadedTask) -> None:
    """Call the loss once: a loss that fails is reported before the first training."""
    inputs, labels = task.splits["validation"].take(range(min(2, task.splits["validation"].count)))
    if task.module is None or labels is None:
        return
    try:
        value = loss(network.forward(task.module, network.as_tensors(inputs)), torch.from_numpy(labels))
        value.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # the user's code
        text = (str(error).strip().splitlines() or ["(no message)"])[0]
        raise InputError(f"--loss {name} fails on the data: {type(error).__name__}: {text}") from error
    finally:
        task.module.zero_grad(set_to_none=True)


def _builtin_loss(name: str) -> Callable[[Any, Tensor], Tensor]:
    function = getattr(torch.nn.functional, LOSSES[name])

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        first = next(iter(network.tensors(outputs).values())).float()
        if name == "cross-entropy":
            labels = labels.long()
            if first.dim() == 3:  # (N, positions, classes), as in token classification
                first, labels = first.flatten(0, 1), labels.flatten()
        else:
            labels = labels.to(first.dtype).reshape(first.shape)  # (N,) against (N, 1) would be compared pair by pair
        value: Tensor = function(first, labels)
        return value

    return loss


def _methods(registry: Registry, wanted: tuple[str, ...] | None) -> dict[str, Method]:
    methods = registry.methods()
    for name in wanted or ():
        if name not in methods:
            raise PluginError(unknown("method", name, methods))
    return methods if wanted is None else {name: methods[name] for name in wanted}


def _lay_out(task: LoadedTask, folder: Path) -> None:
    """Write the inputs that devices score on, one .npy file each; kept from the first preparation of the run."""
    for name in ("validation", "test"):
        split = task.splits.get(name)
        if split is None or split.inputs is None:
            continue
        for k, array in enumerate(split.inputs.values()):
            path = laid_out(folder, name, k)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial.npy")
                np.save(partial, array)
                partial.replace(path)


def _epochs(task: LoadedTask, request: PrepareRequest, identity: Identity | None, store: Store | None) -> tuple[float, float]:
    """(least, most) epochs of one recovery, so that the run's time pays for all of them; fixed where time is not limited.

    What was once timed on this machine holds for later runs too: so the same search asks for the same recipes.
    """
    if request.budget.timeout_s is None or task.module is None or "train" not in task.splits:
        return UNTIMED_EPOCHS
    if store is None or identity is None or (machine := this_machine()) is None:
        return _timed_epochs(task, request.budget.timeout_s, request.budget.trials, request.seed)
    budget = [request.budget.timeout_s, request.budget.trials, request.seed]
    key = digest_of([FORM, identity.task, machine, budget, versions(), package_digest("building")])
    if (kept := store.get("epochs", key)) is not None:
        least, most = json.loads(kept)
        return least, most
    found = _timed_epochs(task, request.budget.timeout_s, request.budget.trials, request.seed)
    store.put("epochs", key, json.dumps(found).encode())
    return found


def _timed_epochs(task: LoadedTask, seconds: float, trials: int | None, seed: int) -> tuple[float, float]:
    if task.module is None:
        return UNTIMED_EPOCHS
    split = task.splits["train"]
    steps = 3
    share = min(1.0, steps * training.batch_size(split.count) / split.count)
    twin = copy.deepcopy(task.module)

    def value(outputs: Any, inputs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        with torch.no_grad():
            network.forward(twin, inputs)  # a recovery runs the teacher too
        first = next(t for t in network.tensors(outputs).values() if t.is_floating_point())
        return first.float().square().mean() * 0.0

    for timed in (False, True):  # the first steps pay for memory and kernel choice
        start = time.monotonic()
        training.train(copy.deepcopy(task.module), split, epochs=share, loss=value, learning_rate=1e-6, seed=seed)
        if timed:
            break
    epoch = (time.monotonic() - start) / share
    recoveries = RECOVERIES_IN_A_RUN if trials is None else max(1.0, RECOVERIES_A_TRIAL * trials)
    most = min(MOST_EPOCHS, SHARE_FOR_RECOVERY * seconds / recoveries / epoch)
    most = float(f"{most:.2g}")
    return (float(f"{most * LEAST_SHARE:.2g}"), most)
