"""Conformance tests of methods."""

import copy
import functools
import importlib.util
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from orchestrator.errors import PluginError
from orchestrator.plugin import (
    BuildContext,
    Choice,
    Method,
    MethodError,
    Number,
    OnnxMethod,
    Parameter,
    ParameterError,
    Recipe,
    Refused,
    Step,
    TorchMethod,
    TorchToOnnxMethod,
)
from orchestrator.plugin.family_order import families_in_order
from orchestrator.plugin.networks import macs, tensors
from orchestrator.plugin.parameters import check_conditions, checked
from orchestrator.plugin.reads import Access, restricted
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing.cases import NETWORKS, Case, make_case
from orchestrator.plugin.testing.problems import last_line, must, python, wrong

KEEPS = frozenset({"zeros"})
MANY_ZEROS = 0.05
"""Share of a weight's elements that a method may set to zero without declaring that it keeps them."""
FRAMEWORKS = ("torch", "onnx", "onnxruntime")


class MethodTests:
    """Subclass it with your method; the name of the subclass begins with `Test`, so that pytest finds it.

        class TestShrink(MethodTests):
            method = Shrink()

    Class attributes:
        method: What is tested.
        likeness: The least mean cosine between the outputs before and after a method on files, at its defaults.
        refuses: The networks that the method refuses, with a pattern of the reason; None: it may refuse any.
        cases: Networks of your own beside the kit's four: functions that make a `Case`.
        lenient: Whether a method that refuses every network is skipped rather than failed.
    """

    method: ClassVar[Any]
    likeness: ClassVar[float] = 0.9
    refuses: ClassVar[Mapping[str, str] | None] = None
    cases: ClassVar[Mapping[str, Callable[[], Case]]] = {}
    lenient: ClassVar[bool] = False

    # -- what a subclass may change ---------------------------------------------------------------------------------------

    def networks(self) -> Sequence[Any]:
        """Return the networks as pytest parameters."""
        return [*NETWORKS, *self.cases]

    def case(self, network: str) -> Case:
        """Return the network of that name with its data."""
        return self.cases[network]() if network in self.cases else make_case(network)

    def context(self, case: Case, workspace: Path) -> BuildContext:
        """Return the context of the method."""
        return case.context(workspace)

    def record(self, network: str, facts: dict[str, Any], request: pytest.FixtureRequest) -> None:
        """Told what the method made of a network, for golden results."""

    # -- the declaration --------------------------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each network."""
        if "network" in metafunc.fixturenames:
            metafunc.parametrize("network", self.networks())

    def test_declaration_is_whole(self) -> None:
        """Name, version, family, summary; parameters with a meaning and a default in their range."""
        method = self.method
        must(isinstance(method, Method), f"`method` is {method!r:.60}, which is no Method", "give an instance: method = Shrink()")
        for attribute in ("name", "family", "summary"):
            must(getattr(method, attribute, ""), f"`{attribute}` is missing", f"declare `{attribute}` in the class")
        must(method.version >= 1, f"`version` is {method.version}", "begin with 1")
        must(method.summary.endswith("."), f"`summary` is no sentence: {method.summary!r}", "write one sentence with a full stop")
        must(method.keeps <= KEEPS, f"`keeps` names {sorted(method.keeps - KEEPS)}", f"choose from {sorted(KEEPS)}")
        try:
            check_conditions(method.parameters)
        except ParameterError as error:
            wrong(str(error), "declare the parameter that `only_if` names first, and name values that it can have")
        for parameter in method.parameters:
            must(parameter.help, f"parameter '{parameter.name}' has no `help`", "say in a few words what it means")
            must(parameter.count() >= 1, f"parameter '{parameter.name}' has no values", "give it a range or choices")
            try:
                same = parameter.check(parameter.start) == parameter.start
            except ParameterError as error:
                wrong(f"the default of '{parameter.name}' is illegal: {error}", "choose one that is in the range")
            must(same, f"the default of '{parameter.name}' changes when it is checked", "give it in the parameter's own type")
            if isinstance(parameter, Choice):
                kinds = {type(choice).__name__ for choice in parameter.choices}
                must(len(kinds) == 1, f"the choices of '{parameter.name}' are of several types: {kinds}", "use one type")

    def test_parameters_out_of_range_are_refused(self) -> None:
        """What the search cannot ask for, a recipe file cannot either."""
        name = self.method.name
        for parameter in self.method.parameters:
            key = parameter.name.replace("*", "layer.1")
            values: list[Any] = [float("nan"), "much of it", None]
            values += [] if isinstance(parameter, Choice) and True in parameter.choices else [True]
            if isinstance(parameter, Number):
                low, high = parameter.bounds or (parameter.low, parameter.high)
                values += [low - 1, high + 1]
            for value in values:
                beside = dict([parameter.only_if[:2]]) if parameter.only_if else {}
                with pytest.raises(ParameterError, match=f"{name}: `{key}` must be"):
                    checked(name, self.method.parameters, {**beside, key: value})
        with pytest.raises(ParameterError, match="unknown parameter"):
            checked(name, self.method.parameters, {"no such parameter": 1})

    def test_step_survives_its_way_through_json(self) -> None:
        """A recipe is data: it comes back from results.json as it was."""
        values = checked(self.method.name, self.method.parameters, {})
        recipe = Recipe(steps=(Step(method=self.method.name, version=self.method.version, parameters=values),))
        again = Recipe.from_json(json.loads(json.dumps(recipe.as_json())))
        must(
            again.digest == recipe.digest,
            "a step at its defaults changes on its way through JSON",
            "use plain numbers and strings",
        )
        kept = checked(self.method.name, self.method.parameters, again.steps[0].parameters)
        must(
            kept == values, "parameters change when they are checked again", "`check` of a checked value must give the same value"
        )

    def test_order_fits_the_other_methods(self) -> None:
        """`before`, `after` and `requires` contradict neither each other nor the methods that are installed."""
        one = self.method
        methods = Registry.discover().methods() | {one.name: one}
        families = {m.family for m in methods.values()}
        both = one.before & one.after
        must(not both, f"{sorted(both)} stand in `before` and in `after`", "keep one")
        must(one.family not in one.before | one.after, f"`before` or `after` name the own family '{one.family}'", "leave it out")
        strange = sorted((one.before | one.after | one.requires) - families)
        must(not strange, f"no method is of the family {strange}", f"the families here are {sorted(families)}")
        must(
            one.requires <= one.after,
            "`requires` names families that `after` does not",
            "what is required comes earlier: name it in both",
        )
        _has_an_order(list(methods.values()))

    def test_module_wakes_no_framework(self) -> None:
        """The command line imports every plugin: a framework is loaded when it is used."""
        module = type(self.method).__module__
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"module '{module}' cannot be imported by name")
        done = python(f"import sys, {module}; print(*sorted({set(FRAMEWORKS)} & {{*sys.modules}}))")
        must(done.returncode == 0, f"`import {module}` fails: {last_line(done.stderr)}", "make it importable by itself")
        loaded = done.stdout.split()
        must(not loaded, f"`import {module}` loads {', '.join(loaded)}", "import them inside the functions that use them")

    # -- what it does -----------------------------------------------------------------------------------------------------

    def test_some_network_is_accepted(self, tmp_path: Path) -> None:
        """A method that refuses everything has not been tested."""
        if self.refuses is not None:
            return  # then each network is held to what is declared
        reasons = []
        for parameter in self.networks():
            case = self.case(self._name(parameter))
            context = self.context(case, tmp_path / self._name(parameter))
            try:
                self._offered(self._input(self._name(parameter), case, context.workspace / "input"), context)
            except (Refused, MethodError) as reason:
                reasons.append(f"{self._name(parameter)}: {reason}")
                continue
            return
        if self.lenient:
            pytest.skip(f"the method refuses every network of the kit ({'; '.join(reasons)})")
        wrong(
            f"the method refuses every network of the kit ({'; '.join(reasons)})",
            'give one of your own that it takes: cases = {"mine": lambda: Case(model=..., inputs={...}, classes=...)}',
        )

    def test_network_is_refused_or_transformed(
        self, network: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The heart of it: twice the same, nothing else touched, and the file that comes out says what the network says."""
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        case = self.case(network)
        model = self._input(network, case, tmp_path / "input")
        context = self.context(case, tmp_path / "work")
        before = copy.deepcopy(case.model.state_dict())
        if self._refused(network, model, context):
            return
        offered = self._offered(model, context)
        assert_untouched(case, before)
        values = checked(self.method.name, offered, {})
        if isinstance(self.method, TorchMethod):
            facts = self._torch(case, values, context, before, tmp_path)
        else:
            facts = self._file(case, model, values, context, tmp_path)
        assert_untouched(case, before)
        left = sorted(path.name for path in here.iterdir())
        must(not left, f"{left} were written into the current folder", "write into `context.workspace` only")
        self.record(network, facts, request)

    @staticmethod
    def _name(parameter: Any) -> str:
        return str(getattr(parameter, "values", (parameter,))[0])

    def _input(self, network: str, case: Case, folder: Path) -> Any:
        """Return what `offer` and `transform` are handed: the module, or the exported file."""
        if not isinstance(self.method, OnnxMethod):
            return case.model
        path = folder / "model.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        if network in self.cases or type(self).case is not MethodTests.case:
            _exported(case, case.model, path)
        else:
            path.write_bytes(exported_network(network))
        return path

    def _offered(self, model: Any, context: BuildContext) -> tuple[Parameter, ...]:
        """Return what the method offers with the parts of a context that it declares to read."""
        with _declared_reads():
            view = restricted(context, Access(self.method.name, self.method.reads | self.method.offer_reads))
            offered: tuple[Parameter, ...] = self.method.offer(model, self.method.legal(view.target), view)
            return offered

    def _transformed(self, model: Any, values: Any, context: BuildContext) -> Any:
        with _declared_reads():
            return self.method.transform(model, values, restricted(context, Access(self.method.name, self.method.reads)))

    def _refused(self, network: str, model: Any, context: BuildContext) -> bool:
        if self.refuses is not None and network in self.refuses:
            with pytest.raises((Refused, MethodError), match=self.refuses[network]):
                self._offered(model, context)
            return True
        try:
            self._offered(model, context)
        except (Refused, MethodError) as reason:
            must(self.refuses is None, f"it refuses {network}: {reason}", "name the network in `refuses`, or do not refuse it")
            must(str(reason).strip(), "it refuses without a reason", 'raise Refused("why")')
            return True
        return False

    def _torch(self, case: Case, values: Any, context: BuildContext, before: Any, folder: Path) -> dict[str, Any]:
        changed = [self._transformed(case.copy(), values, context) for _ in range(2)]
        for model in changed:
            must(isinstance(model, nn.Module), f"`transform` returned {type(model).__name__}", "return the torch module")
        assert_untouched(case, before)
        states = [model.state_dict() for model in changed]
        same = states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        must(same, "the same call made two different networks", "seed everything random from `context.seed`")
        expected, was = case.outputs(changed[0], 5), case.outputs(case.model, 5)
        must(
            expected.shape == was.shape,
            f"the output's shape changed from {tuple(was.shape)} to {tuple(expected.shape)}",
            "leave the last layer's size as it is",
        )
        same_weights = all(states[0].get(k) is not None and torch.equal(states[0][k], v) for k, v in before.items())
        must(
            not (same_weights and torch.equal(expected, was)),
            "nothing changed",
            "where there is nothing to do, `offer` raises Refused, so that no trial is spent on it",
        )
        path = folder / "model.onnx"
        try:
            _exported(case, changed[0], path)
        except Exception as error:  # the exporter raises many kinds
            wrong(f"the network that it makes cannot be exported: {last_line(str(error))}", "build it of operators that ONNX has")
        got = infer(path, {name: array[:5] for name, array in case.inputs.items()})[0]
        close = got.shape == expected.shape and np.allclose(got, expected.numpy(), rtol=1e-3, atol=1e-4)
        must(
            close,
            "the exported file answers otherwise than the network",
            "avoid what export freezes: random draws, sizes read as numbers",
        )
        assert_zeros_stay(self.method, case, changed[0])
        counts = macs(changed[0], context.forward, context.example)
        return {"parameters": sum(p.numel() for p in changed[0].parameters()), "macs": sum(counts.values())}

    def _file(self, case: Case, model: Any, values: Any, context: BuildContext, folder: Path) -> dict[str, Any]:
        exporting = isinstance(self.method, TorchToOnnxMethod)
        original = None if exporting else model.read_bytes()
        made: list[Path] = []
        for k in range(2):
            workspace = folder / f"work{k}"
            workspace.mkdir()
            own = self.context(case, workspace) if exporting else replace(context, workspace=workspace)
            made.append(self._transformed(case.copy() if exporting else model, values, own))
        for k, path in enumerate(made):
            must(isinstance(path, Path), f"`transform` returned {type(path).__name__}", "return the path of the file")
            must(path.is_file(), f"`transform` returned '{path.name}', which is not there", "return the file that it wrote")
            must(path.parent == folder / f"work{k}", "the file lies outside `context.workspace`", "write it there")
        must(
            original is None or model.read_bytes() == original,
            "the file that it was handed was changed",
            "load it, change the copy, save that",
        )
        must(
            made[0].read_bytes() == made[1].read_bytes(),
            "the same call made two different files",
            "seed everything random from `context.seed`, and write nothing into the file that changes (dates, paths)",
        )
        if original is not None:
            left = sorted(p.name for p in made[0].parent.iterdir() if p.name != made[0].name)
            must(not left, f"scratch files were left: {left}", "delete them")
            must(made[0].read_bytes() != original, "nothing changed", "where there is nothing to do, `offer` raises Refused")
        reference = case.export(folder / "reference", case.copy()) if exporting else model
        assert_alike(case, reference, made[0], least=self.likeness)
        return facts(made[0])


@functools.cache
def exported_network(name: str) -> bytes:
    """Return the ONNX file of one of the kit's networks; each is exported once in a process, for an export takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        case = make_case(name)
        _exported(case, case.model, path)
        return path.read_bytes()


def _exported(case: Case, model: nn.Module, path: Path) -> None:
    """ONNX with a dynamic batch axis."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns of its own deprecated parts
        torch.onnx.export(
            model,
            tuple(case.batch().values()),
            path,
            dynamo=True,
            verbose=False,
            input_names=list(case.inputs),
            dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1)} for _ in case.inputs),
            external_data=False,
        )


def infer(path: Path, inputs: Mapping[str, Any]) -> list[Any]:
    """Return the outputs of an ONNX file in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(None, dict(inputs))
    return outputs


def assert_untouched(case: Case, before: Any) -> None:
    """Check that the original, the teacher of others, is unchanged."""
    now = case.model.state_dict()
    same = now.keys() == before.keys() and all(torch.equal(before[k], v) for k, v in now.items())
    must(
        same, "the original network was changed", "`offer` changes nothing; `transform` changes the model that it is handed only"
    )
    must(
        all(p.requires_grad for p in case.model.parameters()), "weights of the original no longer take gradients", "restore them"
    )
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())
    must(not hooks, "a forward hook was left on the original", "remove it in a `finally`")


@contextmanager
def _declared_reads() -> Iterator[None]:
    """Fail the test where the method reads what it does not declare."""
    try:
        yield
    except MethodError as error:
        problem, undeclared, fix = str(error).partition(" is read but not declared; ")
        if not undeclared:
            raise
        wrong(f"{problem} is read but not declared", fix)


def assert_zeros_stay(method: Method, case: Case, changed: nn.Module) -> None:
    """Train the changed network for one step: the weights that `transform` set to zero stay zero, as the method declares."""
    original, trained = _matrices(case.model), copy.deepcopy(changed)
    case.train(trained, epochs=1, loss=_mean_square, learning_rate=0.01)
    after, declared = _matrices(trained), "zeros" in method.keeps
    for name, weight in _matrices(changed).items():
        if name not in original or name not in after:
            continue
        zeros = weight == 0
        if original[name].shape == weight.shape:
            zeros &= original[name] != 0
        lost = int((zeros & (after[name] != 0)).sum())
        must(
            not lost or (not declared and zeros.float().mean() <= MANY_ZEROS),
            f"`transform` set {int(zeros.sum())} weights of '{name}' to zero, and one training step later {lost} of them are not"
            + (", although `keeps` declares zeros" if declared else ""),
            "call `orchestrator.plugin.masks.keep_zeros(model)` at the end of `transform`"
            + ("" if declared else ' and declare keeps = frozenset({"zeros"})'),
        )


def _matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.ndim > 1}


def _mean_square(outputs: Any, *_: Any) -> torch.Tensor:
    return torch.stack([tensor.square().mean() for tensor in tensors(outputs) if tensor.is_floating_point()]).sum()


def assert_alike(case: Case, before: Path, after: Path, *, least: float) -> None:
    """Both files answer alike: the mean cosine of their outputs is high enough."""
    inputs = {name: array[:16] for name, array in case.inputs.items()}
    expected = infer(before, inputs)[0]
    try:
        got = infer(after, inputs)[0]
    except Exception as error:  # onnxruntime raises many kinds
        wrong(f"onnxruntime cannot run the file: {last_line(str(error))}", "check it by onnx.checker.check_model")
    must(got.shape == expected.shape, f"the output's shape changed to {got.shape}", "leave inputs and outputs as they are")
    cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
    must(
        cosine.mean() > least,
        f"its outputs are unlike the original's: mean cosine {cosine.mean():.3f}, and {least:g} is the least",
        "choose gentler defaults, or set `likeness` where the method is meant to change that much",
    )


def facts(path: Path) -> dict[str, Any]:
    """Return the operators of a file and the bytes of its constants by type, independent of the weights' values."""
    graph = onnx.load(str(path)).graph
    held: Counter[str] = Counter()
    for tensor in graph.initializer:
        held[onnx.TensorProto.DataType.Name(tensor.data_type)] += len(onnx.numpy_helper.to_array(tensor).tobytes())
    return {"operators": dict(Counter(node.op_type for node in graph.node)), "bytes": dict(held)}


def _has_an_order(methods: Sequence[Method]) -> None:
    """Check that the families have one order, with no method that gives files before one that takes modules."""
    for one in methods:
        for other in methods:
            follows = other.family in one.before or one.family in other.after
            must(
                not (follows and isinstance(other, TorchMethod)) or isinstance(one, TorchMethod),
                f"{other.name} takes a module, but {one.name}, which comes before it, gives a file",
                "methods on modules come first",
            )
    try:
        families_in_order({method.name: method for method in methods})
    except PluginError as error:
        wrong(str(error), "change `before` or `after`")
