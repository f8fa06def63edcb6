"""The builder: steps of all three kinds in order, what they are handed, and what is kept."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from orchestrator.building.builder import Builder, StepFailed
from orchestrator.building.task import load_task
from orchestrator.plugin import (
    BuildContext,
    Choice,
    Method,
    MethodError,
    Number,
    OnnxMethod,
    ParameterError,
    Recipe,
    Step,
    TaskDescription,
    TorchMethod,
    TorchToOnnxMethod,
)
from orchestrator.plugin.losses import TeacherLoss
from orchestrator.plugin.masks import keep_zeros
from orchestrator.plugin.reads import Access, restricted
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import make_case
from orchestrator.values.direction import Direction
from orchestrator.values.task import TaskSpec

Project = Any


class Halve(TorchMethod):
    name, version, family, summary = "halve", 1, "a", "Halves the head."
    parameters = (Number(name="layer:*", help="of each layer", low=0, high=1, step=0.5, default=0),)

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        with torch.no_grad():
            model.head.weight.mul_(0.5)
        return model


class Learn(TorchMethod):
    name, version, family, summary = "learn", 1, "b", "Trains."
    parameters = (Choice(name="stop", help="raise in the middle", choices=(False, True)),)
    steps = 0

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        teacher = TeacherLoss.of(context)
        type(self).steps = 0

        def loss(outputs: Any, inputs: Any, labels: Any) -> Any:
            type(self).steps += 1
            if parameters["stop"] and self.steps == 9:
                raise KeyboardInterrupt  # as when the process is killed: no step's own failure
            return teacher(outputs, inputs, labels)

        context.train(model, epochs=4, loss=loss, learning_rate=0.01)
        return model


class Leave(TorchToOnnxMethod):
    name, version, family, summary = "leave", 1, "c", "Exports by itself."

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> Path:
        return context.export(model)


class Mark(OnnxMethod):
    name, version, family, summary = "mark", 1, "d", "Signs the file."

    def transform(self, model: Path, parameters: Mapping[str, Any], context: BuildContext) -> Path:
        loaded = onnx.load(model)
        loaded.doc_string += "marked"
        path = context.workspace / "marked.onnx"
        onnx.save(loaded, path)
        return path


class Zero(TorchMethod):
    name, version, family, summary = "zero", 1, "f", "Zeroes every second input of the head."
    keeps = frozenset({"zeros"})

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        with torch.no_grad():
            model.head.weight[:, ::2] = 0
        keep_zeros(model, ["head.weight"])
        return model


class Shift(TorchMethod):
    name, version, family, summary = "shift", 1, "g", "Adds a constant to the head, as a training loop of its own does."

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        with torch.no_grad():
            model.head.weight.add_(0.1)
        return model


class Table(TorchMethod):
    name, version, family, summary = "table", 1, "e", "Keeps a table."
    computed = 0

    def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
        def compute() -> Any:
            type(self).computed += 1
            return {1: (2, 3)}

        table = context.remember("shares", compute)
        if table != {"1": [2, 3]}:
            raise MethodError(f"a table must come back as JSON holds it, but got {table}")
        return model


@pytest.fixture
def make(project: Project, tmp_path: Path) -> Callable[..., Builder]:
    """`make(data="splits", trains=True)`: a builder over the methods above; the same folder each time."""

    def builder(data: str = "splits", trains: bool = True) -> Builder:
        task = load_task(
            TaskSpec(name="tiny", model=project.ref("model:net"), data=project.ref(f"data:{data}")), Registry.discover()
        )
        labels = task.splits["train"].labels
        methods: list[Method] = [Halve(), Learn(), Leave(), Mark(), Table(), Zero(), Shift()]
        description = TaskDescription(
            spec=task.spec,
            kind="torch",
            inputs=task.inputs,
            outputs=task.outputs,
            classes=task.classes,
            metric="accuracy",
            direction=Direction.MAXIMIZE,
            examples={name: split.count for name, split in task.splits.items()},
            labelled=() if labels is None else ("train", "validation"),
            digest=task.digest,
            weights_digest=task.weights_digest,
            data_digest=task.data_digest,
        )
        return Builder(
            task,
            description,
            None,  # type: ignore[arg-type]  # none of these methods asks for the target
            {method.name: method for method in methods},
            loss=None if labels is None else nn.functional.cross_entropy,
            epochs=(1.0, 2.0),
            seed=0,
            workspace=tmp_path / ("builds" if trains else "sketches"),
            report=lambda what, done: None,
            trains=trains,
        )

    return builder


def recipe(*steps: str, **parameters: Any) -> Recipe:
    return Recipe(steps=tuple(Step(method=name, version=1, parameters=parameters) for name in steps))


def head(path: Path) -> np.ndarray:
    found = [t for t in onnx.load(path).graph.initializer if list(t.dims) == [3, 8]]
    return np.asarray(onnx.numpy_helper.to_array(found[0]))


def test_steps_of_all_kinds_follow_one_another(make: Callable[..., Builder], tmp_path: Path) -> None:
    builder = make()
    plain = builder.build(Recipe(), tmp_path / "plain")
    for names in (("halve", "mark"), ("halve", "leave", "mark"), ("leave", "mark")):
        made = builder.build(recipe(*names), tmp_path / "-".join(names))
        assert made == tmp_path / "-".join(names) / "model.onnx"
        assert onnx.load(made).doc_string.endswith("marked")
        np.testing.assert_allclose(head(made), head(plain) * (0.5 if "halve" in names else 1), rtol=1e-6)


@pytest.mark.parametrize("names", [("zero", "learn"), ("zero", "shift"), ("zero", "shift", "learn", "leave")])
def test_zeros_are_kept_through_later_steps(names: tuple[str, ...], make: Callable[..., Builder], tmp_path: Path) -> None:
    builder = make()
    weight = head(builder.build(recipe(*names), tmp_path / "built"))
    assert not weight[:, ::2].any() and weight[:, 1::2].all()
    assert not np.allclose(weight[:, 1::2], head(builder.build(recipe("zero"), tmp_path / "zero"))[:, 1::2])


@pytest.mark.parametrize(
    ("read", "reads"),
    [
        ("target.channel_multiple.int8", {"target.channel_multiple.float32", "task"}),
        ("target.profile", {"target.runtime"}),
        ("task.metric", {"task.name"}),
        ("epochs", {"target"}),
        ("train", {"task_loss"}),
    ],
)
def test_undeclared_read_is_one_line_with_the_fix(read: str, reads: set[str], tmp_path: Path) -> None:
    plain = make_case("plain-cnn").context(tmp_path)

    def value(context: BuildContext) -> Any:
        if "channel_multiple" in read:
            return context.target.channel_multiple("int8")
        return functools.reduce(getattr, read.split("."), context)

    with pytest.raises(MethodError) as error:
        value(restricted(plain, Access("prune", frozenset(reads))))
    assert str(error.value).startswith(f"prune: `context.{read}` is read but not declared; add '{read}' to the method's `reads`")
    for declared in (read, read.partition(".")[0]):
        assert value(restricted(plain, Access("prune", frozenset({declared})))) == value(plain)


def test_method_that_reads_what_it_does_not_declare_fails_its_step(make: Callable[..., Builder], tmp_path: Path) -> None:
    class Sly(Halve):
        name, reads = "sly", frozenset[str]()

        def transform(self, model: nn.Module, parameters: Mapping[str, Any], context: BuildContext) -> nn.Module:
            return super().transform(model, {"by": context.epochs}, context)

    builder = make()
    builder._methods["sly"] = Sly()  # type: ignore[index]
    with pytest.raises(StepFailed, match="sly: `context.epochs` is read but not declared"):
        builder.build(recipe("sly"), tmp_path / "sly")


@pytest.mark.parametrize("names", [("mark", "halve"), ("leave", "halve"), ("mark", "leave"), ("leave", "leave")])
def test_module_methods_cannot_follow_a_file(names: tuple[str, ...], make: Callable[..., Builder], tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="cannot follow a step on the ONNX file"):
        make().build(recipe(*names), tmp_path / "made")


def test_same_recipe_gives_the_same_bytes_from_another_builder(make: Callable[..., Builder], tmp_path: Path) -> None:
    made = [make().build(recipe("learn", "mark"), tmp_path / f"made{k}").read_bytes() for k in range(2)]
    assert made[0] == made[1]


def test_training_that_was_stopped_goes_on_in_the_next_builder(make: Callable[..., Builder], tmp_path: Path) -> None:
    whole = make().build(recipe("learn"), tmp_path / "whole").read_bytes()
    steps = Learn.steps
    with pytest.raises(KeyboardInterrupt):
        make().build(recipe("learn", stop=True), tmp_path / "stopped")
    (kept,) = (tmp_path / "builds" / "checkpoints").iterdir()
    # The recipe that goes on is the one that was stopped; here it must not stop again, so its name is given to the other.
    other = make()._key((), Step(method="learn", version=1, parameters={"stop": False}))
    kept.rename(kept.with_name(f"{other}-0.pt"))
    assert make().build(recipe("learn"), tmp_path / "again").read_bytes() == whole
    assert 0 < Learn.steps < steps
    assert not list((tmp_path / "builds" / "checkpoints").iterdir())


def test_tables_are_computed_once_for_each_network(make: Callable[..., Builder], tmp_path: Path) -> None:
    Table.computed = 0
    for k in range(2):
        make().build(recipe("table"), tmp_path / f"made{k}")
    assert Table.computed == 1
    make().build(recipe("halve", "table"), tmp_path / "halved")
    assert Table.computed == 2, "another network has another table"


def test_samples_are_the_same_each_time_and_labelled_by_the_train_split(make: Callable[..., Builder]) -> None:
    def drawn(builder: Builder) -> Iterator[tuple[Any, Any]]:
        return builder.context.samples(20, 8)

    builder = make()
    first, second = list(drawn(builder)), list(drawn(builder))
    assert [len(labels) for _, labels in first] == [8, 8, 4]
    assert all(torch.equal(a[0]["image"], b[0]["image"]) for a, b in zip(first, second, strict=True))
    assert all(labels is None for _, labels in drawn(make("unlabelled")))


def test_names_after_a_star_are_parameters_of_that_kind(make: Callable[..., Builder], tmp_path: Path) -> None:
    builder = make()
    builder.build(recipe("halve", **{"layer:stem": 0.5}), tmp_path / "made")
    with pytest.raises(ParameterError, match="halve: `layer:stem` must be a number with 0 <= value <= 1"):
        builder.build(recipe("halve", **{"layer:stem": 2.0}), tmp_path / "worse")
    with pytest.raises(ParameterError, match="unknown parameter 'lair:stem'"):
        builder.build(recipe("halve", **{"lair:stem": 0.5}), tmp_path / "unknown")


def test_parametrized_weights_are_baked_into_the_file(make: Callable[..., Builder], tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    builder = make()
    plain = head(builder.build(Recipe(), tmp_path / "plain"))
    module: Any = builder.context.original
    nn.utils.parametrize.register_parametrization(module.head, "weight", Twice())
    assert np.allclose(head(builder.context.export(module)), 2 * plain)
    assert nn.utils.parametrize.is_parametrized(module.head), "the network itself stays as it is"


def test_sketch_is_the_recipe_without_its_trainings(make: Callable[..., Builder], tmp_path: Path) -> None:
    builder, sketcher = make(), make(trains=False)
    plain = builder.build(Recipe(), tmp_path / "plain").read_bytes()
    Learn.steps = 0
    assert sketcher.build(recipe("learn"), tmp_path / "sketch").read_bytes() == plain
    assert Learn.steps == 0
    assert builder.build(recipe("learn"), tmp_path / "whole").read_bytes() != plain, "a sketch is not taken for the model"
    halved = sketcher.build(recipe("halve", "mark"), tmp_path / "halved-sketch")
    assert halved.read_bytes() == builder.build(recipe("halve", "mark"), tmp_path / "halved").read_bytes()
