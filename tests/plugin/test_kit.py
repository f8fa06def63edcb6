"""The kit finds what it is there to find, and says how to fix it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from orchestrator.plugin import (
    Choice,
    InputError,
    Method,
    Metric,
    Number,
    OnnxMethod,
    Parameter,
    Refused,
    Runtime,
    TorchMethod,
)
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.task import TaskSource
from orchestrator.plugin.testing import (
    DeviceTests,
    MethodTests,
    MetricTests,
    ProfileTests,
    ReadySearchTests,
    ReportTests,
    RuntimeTests,
    SamplerTests,
    TaskTests,
)
from orchestrator_devices.host import HostDevice

Said = pytest.fail.Exception


class Scale(TorchMethod):
    """Works: halves the head's weights."""

    name, version, family, summary = "scale", 1, "scaling", "Halves the head."

    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        with torch.no_grad():
            model.head.weight *= 0.5
        return model


class Named(OnnxMethod):
    """Works: renames the producer."""

    name, version, family, summary = "named", 1, "naming", "Names the producer."

    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        loaded = onnx.load(model)
        loaded.producer_name = self.producer()
        path: Path = context.workspace / "named.onnx"
        onnx.save(loaded, path)
        return path

    def producer(self) -> str:
        return "us"


def held_to(base: type[Any], **members: Any) -> Any:
    return type("Held", (base,), members)()


@pytest.mark.slow
@pytest.mark.parametrize("method", [Scale(), Named()])
def test_method_that_works_passes(method: Method, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = held_to(MethodTests, method=method)
    held.test_declaration_is_whole()
    held.test_parameters_out_of_range_are_refused()
    held.test_step_survives_its_way_through_json()
    held.test_order_fits_the_other_methods()
    held.test_some_network_is_accepted(tmp_path / "accepted")
    held.test_network_is_refused_or_transformed("plain-cnn", request, tmp_path, monkeypatch)


class Chance(Scale):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        nn.init.normal_(
            model.head.weight, generator=torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 30)))
        )
        return model


class Idle(Scale):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        return model


class Teacher(Scale):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        with torch.no_grad():
            context.original.head.weight *= 0.5
            model.head.weight *= 0.25
        return model


class Narrow(Scale):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        model.head = nn.Linear(32, 3)
        nn.init.ones_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        return model


class Dated(Named):
    count = 0

    def producer(self) -> str:
        type(self).count += 1
        return f"at {self.count}"


class InPlace(Named):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        path = super().transform(model, parameters, context)
        model.write_bytes(path.read_bytes() + b"\x72\x00")
        return path


class Elsewhere(Named):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        path = super().transform(model, parameters, context)
        other = Path.cwd() / "here.onnx"
        other.write_bytes(path.read_bytes())
        return path


class Ruins(Named):
    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        path = super().transform(model, parameters, context)
        loaded = onnx.load(path)
        for tensor in loaded.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(-np.abs(array) - 1, tensor.name))
        onnx.save(loaded, path)
        return path


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Chance(), "the same call made two different networks\n  fix: seed everything random from `context.seed`"),
        (Idle(), "nothing changed\n  fix: where there is nothing to do, `offer` raises Refused"),
        (Teacher(), "the original network was changed"),
        (Narrow(), "the output's shape changed from (5, 5) to (5, 3)"),
        (Dated(), "the same call made two different files"),
        (InPlace(), "the file that it was handed was changed"),
        (Elsewhere(), "['here.onnx'] were written into the current folder"),
        (Ruins(), "its outputs are unlike the original's"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Method) else "",
)
def test_method_that_misbehaves_is_told_so(
    method: Method, said: str, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Said) as error:
        held_to(MethodTests, method=method).test_network_is_refused_or_transformed("plain-cnn", request, tmp_path, monkeypatch)
    assert said in str(error.value)


def test_method_that_refuses_everything_is_asked_for_a_network(tmp_path: Path) -> None:
    class Never(Scale):
        def offer(self, model: Any, parameters: tuple[Parameter, ...], context: Any) -> tuple[Parameter, ...]:
            raise Refused("not today")

    with pytest.raises(Said, match="refuses every network of the kit"):
        held_to(MethodTests, method=Never()).test_some_network_is_accepted(tmp_path)


@pytest.mark.parametrize(
    ("declared", "check", "said"),
    [
        ({"summary": "Halves"}, "test_declaration_is_whole", "`summary` is no sentence"),
        ({"version": 0}, "test_declaration_is_whole", "begin with 1"),
        (
            {"parameters": (Number(name="by", help="", low=0, high=1, step=0.5, default=0),)},
            "test_declaration_is_whole",
            "parameter 'by' has no `help`",
        ),
        (
            {"parameters": (Choice(name="by", help="how", choices=("a", 1)),)},
            "test_declaration_is_whole",
            "are of several types",
        ),
        ({"after": frozenset({"pruninng"})}, "test_order_fits_the_other_methods", "no method is of the family ['pruninng']"),
        (
            {"after": frozenset({"distillation"}), "before": frozenset({"pruning"})},
            "test_order_fits_the_other_methods",
            "the methods' declarations of order contradict each other",
        ),
        ({"after": frozenset({"quantization"})}, "test_order_fits_the_other_methods", "methods on modules come first"),
    ],
)
def test_declaration_that_is_wrong_is_told_so(declared: dict[str, Any], check: str, said: str) -> None:
    held = held_to(MethodTests, method=type("Declared", (Scale,), declared)())
    with pytest.raises(Said) as error:
        getattr(held, check)()
    assert said in str(error.value)


class Borrowing(Runtime):
    """Its `load` uses what only its module imports."""

    name, imports = "borrowing", ("onnxruntime",)

    def version(self) -> str:
        return "1"

    @staticmethod
    def load(path: str, threads: int, options: Any) -> Callable[..., Any]:
        assert np.zeros(1) is not None
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda inputs: session.run(None, inputs)


class Deaf(Borrowing):
    """It gives inputs by position and forgets an example."""

    @staticmethod
    def load(path: str, threads: int, options: Any) -> Callable[..., Any]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda inputs: [array[:1] for array in session.run(None, inputs)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "said"), [(Borrowing(), "name 'np' is not defined"), (Deaf(), "of 5 examples it gives an output of shape (1, 5)")]
)
def test_runtime_that_misbehaves_is_told_so(runtime: Runtime, said: str, tmp_path: Path) -> None:
    with pytest.raises(Said) as error:
        held_to(RuntimeTests, runtime=runtime).test_outputs_are_the_networks("plain-cnn", tmp_path)
    assert said in str(error.value)


class Errors(Metric):
    name = "errors"

    def score(self, outputs: Any, labels: Any, reference: Any) -> Any:
        return (outputs[0].argmax(1) != labels).astype(np.float64)


class Single(Errors):
    direction: ClassVar[Any] = "minimize"

    def score(self, outputs: Any, labels: Any, reference: Any) -> Any:
        return np.float32((outputs[0].argmax(1) != labels).mean())


def test_metric_that_misbehaves_is_told_so() -> None:
    with pytest.raises(Said, match="`direction` says maximize: is that so"):
        held_to(MetricTests, metric=Errors()).test_better_outputs_score_better()
    with pytest.raises(Said, match="without labels `score` gives a number"):
        held_to(MetricTests, metric=Errors()).test_missing_labels_or_reference_are_one_line()
    with pytest.raises(Said, match="returned float32"):
        held_to(MetricTests, metric=Single()).test_score_is_one_number_for_each_example()


class Nowhere(HostDevice):
    scheme = "nowhere"

    def attach(self, reference: str) -> Any:
        return self

    def check(self, runtime: Runtime) -> None:
        raise InputError("no cable")


def test_device_that_misbehaves_is_told_so() -> None:
    held = held_to(DeviceTests, device=Nowhere())
    with pytest.raises(Said, match="the device is not ready: no cable"):
        held.test_facts_are_plain_data()
    with pytest.raises(Said, match="a reference that it cannot read is taken"):
        held.test_reference_of_another_device_is_refused()


def test_sampler_that_draws_by_chance_is_told_so() -> None:
    import optuna

    held = held_to(SamplerTests, factory=staticmethod(lambda seed: optuna.samplers.RandomSampler()))
    with pytest.raises(Said, match="the same seed asked for other values"):
        held.test_search_with_failures_and_limits_goes_on_and_comes_back()


def test_files_and_tasks_that_are_wrong_are_told_so(tmp_path: Path) -> None:
    profile = Registry.discover().profile_files()["raspberry-pi-4"]
    (tmp_path / "mine.toml").write_text(profile.read_text().replace("clock_hz", "clock_mhz"))
    with pytest.raises(Said, match=r"mine.toml.*clock_mhz"):
        held_to(ProfileTests, path=tmp_path / "mine.toml").test_profile_is_complete_and_sourced()
    (tmp_path / "nightly.toml").write_text(
        'schema = 1\ntitle = "Nightly"\nname = "nightly"\nsampler = "tpe"\nmethods = ["static-int9"]\ntrials = 3\n'
    )
    with pytest.raises(Said, match="static-int9"):
        held_to(ReadySearchTests, path=tmp_path / "nightly.toml").test_search_can_be_loaded_and_names_what_is_there()
    task = TaskSource(name="t", summary="a task", model="no_such_package:net", data="no_such_package:data")
    with pytest.raises(Said, match="a search cannot use it"):
        held_to(TaskTests, task=task).test_model_and_data_fit_each_other_and_come_back_the_same()
    with pytest.raises(Said, match="an empty run cannot be rendered: IndexError"):
        held_to(ReportTests, render=staticmethod(lambda run: run.front[0])).test_every_kind_of_run_is_rendered()
