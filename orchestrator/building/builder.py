"""A recipe into an exported artifact: its steps in order."""

import contextlib
import copy
import hashlib
import itertools
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from orchestrator.building import network, training
from orchestrator.building.export import export_onnx
from orchestrator.building.ladder import Ladder
from orchestrator.building.layout import checkpoints
from orchestrator.building.protocol import ASKING
from orchestrator.building.task import LoadedTask
from orchestrator.errors import FULL, MethodError, OrchestratorError, Refused
from orchestrator.plugin.method import BuildContext, Method, Need, OnnxMethod, TorchMethod, TorchToOnnxMethod
from orchestrator.plugin.parameters import Parameter, checked
from orchestrator.values.recipe import Recipe, Step
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

KEPT_NETWORKS = 8


Report = Callable[[str, float], None]


class StepFailed(OrchestratorError):
    """A step of a recipe raised; the message is the reason."""

    def __init__(self, step: str, message: str, kind: str = "error") -> None:
        super().__init__(message)
        self.step, self.kind = step, kind


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A method that takes part, with its search ranges, or the reason why it does not."""

    method: str
    parameters: tuple[Parameter, ...] = ()
    refused: str | None = None


class Builder:
    """Builds recipes for one task on one target.

    Networks that were trained are kept in memory, least recently used first out: recipes share prefixes.

    Args:
        loss: The task's training loss `f(outputs, labels)`; None where there are no labels.
        workspace: Files that serve the whole run: exported prefixes, checkpoints, tables that methods keep.
        report: Called with (what is done now, share done).
        student: Makes the network that the user named by `--student`.
        trains: Whether trainings are done; without them a model is a sketch of what the recipe makes.
        ladder: Looks at trainings on their way; None: nobody does.
    """

    def __init__(
        self,
        task: LoadedTask,
        description: TaskDescription,
        target: Target,
        methods: Mapping[str, Method],
        *,
        loss: Callable[[Any, Tensor], Tensor] | None,
        epochs: tuple[float, float],
        seed: int,
        workspace: Path,
        report: Report,
        student: Callable[[], nn.Module] | None = None,
        trains: bool = True,
        ladder: Ladder | None = None,
    ) -> None:
        self._ladder = ladder
        self._task, self._methods, self._report, self._trains = task, methods, report, trains
        self._exports = workspace / "exports"
        self._checkpoints, self._remembered = checkpoints(workspace), workspace / "remembered"
        shutil.rmtree(self._exports, ignore_errors=True)  # a worker that died may have left half of one
        self._exports.mkdir(parents=True, exist_ok=True)
        self._networks: OrderedDict[str, nn.Module] = OrderedDict()
        example = task.splits["validation"].take(np.arange(2) % task.splits["validation"].count)[0]
        self.context = BuildContext(
            target=target,
            task=description,
            original=task.module,
            example=network.as_tensors(example),
            forward=network.forward,
            calibration=self._calibration,
            train=partial(self._train, "training", itertools.count(), ""),
            task_loss=loss,
            samples=self._samples,
            export=partial(self._export_to, workspace),
            remember=partial(self._remember, ""),
            student=student,
            workspace=workspace,
            seed=seed,
            epochs=epochs,
        )

    def offers(self) -> list[Offer]:
        """Every method asked, on the original, what it offers here."""
        exported: Path | None = None
        found = []
        for name, method in sorted(self._methods.items()):
            self._report(f"{ASKING}{name}", 0.0)  # if the worker dies now, that method is left out
            try:
                self._check_needs(method)
                parameters = method.legal(self.context.target)
                context = self._context(self._exports, (), method)
                if isinstance(method, TorchMethod | TorchToOnnxMethod):
                    parameters = method.offer(self._original(), parameters, context)
                elif isinstance(method, OnnxMethod):
                    exported = exported or self._export("", self._task.module)
                    parameters = method.offer(exported, parameters, context)
            except (Refused, MethodError) as reason:
                found.append(Offer(method=name, refused=str(reason).removeprefix(f"{name}: ")))
            except OSError as error:
                if error.errno in FULL:
                    raise
                found.append(Offer(method=name, refused=f"it failed: {type(error).__name__}: {error}".splitlines()[0]))
            except Exception as error:  # a plugin's own fault takes only that method out of the search
                found.append(Offer(method=name, refused=f"it failed: {type(error).__name__}: {error}".splitlines()[0]))
            else:
                found.append(Offer(method=name, parameters=tuple(parameters)))
        return found

    def build(self, recipe: Recipe, folder: Path) -> Path:
        """The exported model of a recipe, `folder/model.onnx`.

        Raises:
            StepFailed: a step raised; names it.
            ParameterError: a parameter is illegal.
        """
        folder.mkdir(parents=True, exist_ok=True)
        steps = [self._checked(step) for step in recipe.steps]
        model = self._on_files(steps, folder)
        final = folder / "model.onnx"
        if model != final:
            last = steps[-1].method if steps else "export"
            _guarded(last, partial(shutil.copyfile, model, final))  # a method may name a file that it never wrote
        return final

    def _on_files(self, steps: Sequence[Step], folder: Path) -> Path:
        """The file after all steps, not yet in its place."""
        kinds = [self._methods[step.method] for step in steps]
        on_modules = next((k for k, method in enumerate(kinds) if not isinstance(method, TorchMethod)), len(steps))
        for step, method in zip(steps[on_modules:], kinds[on_modules:], strict=True):
            if not isinstance(method, OnnxMethod) and (step is not steps[on_modules] or isinstance(method, TorchMethod)):
                raise StepFailed("recipe", "a step on the torch module cannot follow a step on the ONNX file")
        prefix = tuple(steps[:on_modules])
        model: Path
        if on_modules < len(steps) and isinstance(exporting := kinds[on_modules], TorchToOnnxMethod):
            module = copy.deepcopy(self._network(prefix, folder))
            model = self._step(folder, prefix, steps[on_modules], partial(exporting.transform, module))
            on_modules += 1
        else:
            key = Recipe(steps=prefix).digest if prefix else ""
            model = self._exports / f"{key or 'original'}.onnx"
            if not model.exists():
                made = self._network(prefix, folder) if self._task.module is not None else None
                self._report("exporting", 0.0)
                model = _guarded("export", partial(self._export, key, made))
        for k in range(on_modules, len(steps)):
            method = kinds[k]
            if isinstance(method, OnnxMethod):
                model = self._step(folder, steps[:k], steps[k], partial(method.transform, model))
        return model

    def _step(self, folder: Path, before: Sequence[Step], step: Step, transform: Callable[..., Any]) -> Any:
        """One step done; `transform(parameters, context)` does it."""
        self._report(step.method, 0.0)
        context = self._context(folder, before, self._methods[step.method], step)
        try:
            return _guarded(step.method, partial(transform, step.parameters, context))
        except StepFailed:
            for kept in self._checkpoints.glob(f"{self._key(before, step)}-*"):
                kept.unlink(missing_ok=True)  # it would fail there again
            raise

    def _network(self, steps: tuple[Step, ...], folder: Path) -> nn.Module:
        """The network after those steps, from the longest prefix that is kept; never to be changed by the caller."""
        if not steps:
            original: nn.Module = self._original()
            return original
        key = Recipe(steps=steps).digest
        if key in self._networks:
            self._networks.move_to_end(key)
            return self._networks[key]
        step = steps[-1]
        method = self._methods[step.method]
        if not isinstance(method, TorchMethod):
            raise StepFailed(step.method, "is no method on torch modules")
        module = copy.deepcopy(self._network(steps[:-1], folder))
        made: nn.Module = self._step(folder, steps[:-1], step, partial(method.transform, module)).eval()
        self._networks[key] = made
        while len(self._networks) > KEPT_NETWORKS:
            dropped, _ = self._networks.popitem(last=False)
            (self._exports / f"{dropped}.onnx").unlink(missing_ok=True)
        return made

    def _original(self) -> Any:
        return self._task.module

    def _export(self, key: str, module: "nn.Module | None") -> Path:
        path = self._exports / f"{key or 'original'}.onnx"
        if path.exists():
            return path
        partial_path = path.with_suffix(".partial")
        if module is None and self._task.file is not None:
            onnx.save(onnx.load(self._task.file), partial_path)  # weights that lie in files beside it come inside
        elif module is not None:
            export_onnx(module, self.context.example, partial_path)
        partial_path.replace(path)
        return path

    def _checked(self, step: Step) -> Step:
        method = self._methods.get(step.method)
        if method is None:
            raise StepFailed(step.method, "no plugin brings this method")
        if method.version != step.version:
            raise StepFailed(step.method, f"the recipe wants version {step.version}, but version {method.version} is installed")
        return replace(step, parameters=checked(step.method, method.parameters, step.parameters))

    def _check_needs(self, method: Method) -> None:
        splits = self._task.splits
        if isinstance(method, TorchMethod | TorchToOnnxMethod) and self._task.module is None:
            raise Refused("the model is an ONNX file, and this method works on torch modules")
        if Need.TRAIN in method.needs and "train" not in splits:
            raise Refused("the data have no train split")
        if Need.CALIBRATION in method.needs and not {"calibration", "train"} & splits.keys():
            raise Refused("the data have neither a calibration nor a train split")
        if Need.LABELS in method.needs and "train" not in self.context.task.labelled:
            raise Refused("the train split has no labels")

    def _context(self, folder: Path, before: Sequence[Step], method: Method, step: Step | None = None) -> BuildContext:
        workspace = folder / f"{method.name}.work"
        workspace.mkdir(parents=True, exist_ok=True)
        key = self._key(before, step or Step(method=method.name, version=method.version))
        return replace(
            self.context,
            workspace=workspace,
            train=partial(self._train, method.name, itertools.count(), key),
            export=partial(self._export_to, workspace),
            # Not of the step's own parameters: what depends on one of them has it in its key.
            remember=partial(self._remember, self._key(before, Step(method=method.name, version=method.version))),
        )

    def _key(self, before: Sequence[Step], step: Step) -> str:
        """Names what a step does to the network that the steps before it made."""
        return Recipe(steps=(*before, step)).digest[:24]

    def _calibration(self, count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
        split = self._task.splits.get("calibration") or self._task.splits["train"]
        training.seed_everything(self.context.seed)  # a train split may draw its augmentation while it is read
        for inputs, _ in split.batches(batch, count):
            yield inputs

    def _samples(self, count: int, batch: int) -> Iterator[tuple[Mapping[str, Tensor], Tensor | None]]:
        name = next(name for name in ("train", "calibration", "validation") if name in self._task.splits)
        training.seed_everything(self.context.seed)
        for inputs, labels in self._task.splits[name].batches(batch, count):
            # What chooses a candidate by the validation labels must not have shaped it by them too.
            hidden = labels is None or name == "validation"
            yield network.as_tensors(inputs), None if hidden else torch.from_numpy(labels)

    def _remember(self, scope: str, key: str, compute: Callable[[], Any]) -> Any:
        path = self._remembered / f"{hashlib.sha256(f'{scope} {key}'.encode()).hexdigest()[:24]}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        value = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        partial_path.write_text(json.dumps(value), "utf-8")
        partial_path.replace(path)
        return json.loads(path.read_text("utf-8"))  # as it is the next time: keys are strings, tuples are lists

    def _export_to(self, folder: Path, module: nn.Module) -> Path:
        path = folder / "exported.onnx"
        export_onnx(module.eval(), self.context.example, path)
        return path

    def _train(self, step: str, calls: Iterator[int], key: str, model: nn.Module, **wishes: Any) -> None:
        if not self._trains:
            model.to("cpu").eval()
            return
        original, split, call = self.context.original, self._task.splits["train"], next(calls)
        if original is not None:
            original.to(training.device())
        watch = None if self._ladder is None else self._ladder.watch(step, call, wishes.get("epochs", 0.0) * split.count)
        try:
            with contextlib.nullcontext() if self._ladder is None else self._ladder.timed():
                training.train(
                    model,
                    split,
                    seed=self.context.seed,
                    checkpoint=training.Checkpoint(path=self._checkpoints / f"{key}-{call}.pt"),
                    progress=partial(self._report, step),
                    watch=watch,
                    **wishes,
                )
        finally:
            if original is not None:
                original.to("cpu")


def _guarded(step: str, work: Callable[[], Any]) -> Any:
    """Run a step; what it raises becomes the reason of a failed candidate."""
    try:
        return work()
    except MemoryError as error:
        raise StepFailed(step, f"MemoryError: {error}", "out-of-memory") from error
    except OSError as error:
        if error.errno in FULL:
            raise  # not the candidate's fault: the run stops, and goes on when it is mended
        raise StepFailed(step, f"{type(error).__name__}: {error}") from error
    except OrchestratorError as error:
        raise StepFailed(step, str(error)) from error
    except Exception as error:  # a method, ours or a third party's, may raise anything
        text = (str(error).strip().splitlines() or ["(no message)"])[0]
        raise StepFailed(step, f"{type(error).__name__}: {text}") from error
