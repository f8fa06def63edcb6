"""A recipe into an exported artifact: its steps in order."""

import copy
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor, nn

from orchestrator.building import network, training
from orchestrator.building.export import export_onnx
from orchestrator.building.protocol import ASKING
from orchestrator.building.task import LoadedTask
from orchestrator.errors import FULL, MethodError, OrchestratorError, Refused
from orchestrator.plugin.method import BuildContext, Method, Need, OnnxMethod, TorchMethod
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
        report: Called with (what is done now, share done).
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
    ) -> None:
        self._task, self._methods, self._report = task, methods, report
        self._exports = workspace / "exports"
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
            train=partial(self._train, "training"),
            task_loss=loss,
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
                if isinstance(method, TorchMethod):
                    parameters = method.offer(self._original(), parameters, self._context(self._exports, name))
                elif isinstance(method, OnnxMethod):
                    exported = exported or self._export("", self._task.module)
                    parameters = method.offer(exported, parameters, self._context(self._exports, name))
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
        torch_steps = [s for s in steps if isinstance(self._methods[s.method], TorchMethod)]
        if steps[: len(torch_steps)] != torch_steps:
            raise StepFailed("recipe", "a step on the torch module cannot follow a step on the ONNX file")
        key = Recipe(steps=tuple(torch_steps)).digest if torch_steps else ""
        model = self._exports / f"{key or 'original'}.onnx"
        if not model.exists():
            module = self._network(tuple(torch_steps), folder) if self._task.module is not None else None
            self._report("exporting", 0.0)
            model = _guarded("export", partial(self._export, key, module))
        for step in steps[len(torch_steps) :]:
            method = self._methods[step.method]
            if isinstance(method, OnnxMethod):
                self._report(step.method, 0.0)
                context = self._context(folder, step.method)
                model = _guarded(step.method, partial(method.transform, model, step.parameters, context))
        final = folder / "model.onnx"
        if model != final:
            last = steps[-1].method if steps else "export"
            _guarded(last, partial(shutil.copyfile, model, final))  # a method may name a file that it never wrote
        return final

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
        self._report(step.method, 0.0)
        context = self._context(folder, step.method)
        made: nn.Module = _guarded(step.method, partial(method.transform, module, step.parameters, context)).eval()
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
        if isinstance(method, TorchMethod) and self._task.module is None:
            raise Refused("the model is an ONNX file, and this method works on torch modules")
        if Need.TRAIN in method.needs and "train" not in splits:
            raise Refused("the data have no train split")
        if Need.CALIBRATION in method.needs and not {"calibration", "train"} & splits.keys():
            raise Refused("the data have neither a calibration nor a train split")
        if Need.LABELS in method.needs and "train" not in self.context.task.labelled:
            raise Refused("the train split has no labels")

    def _context(self, folder: Path, step: str) -> BuildContext:
        workspace = folder / f"{step}.work"
        workspace.mkdir(parents=True, exist_ok=True)
        return replace(self.context, workspace=workspace, train=partial(self._train, step))

    def _calibration(self, count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
        split = self._task.splits.get("calibration") or self._task.splits["train"]
        training.seed_everything(self.context.seed)  # a train split may draw its augmentation while it is read
        for inputs, _ in split.batches(batch, count):
            yield inputs

    def _train(
        self,
        step: str,
        model: nn.Module,
        *,
        epochs: float,
        loss: Callable[[Any, Mapping[str, Tensor], "Tensor | None"], Tensor],
        learning_rate: float,
    ) -> None:
        if self.context.original is not None:
            self.context.original.to(training.device())
        try:
            training.train(
                model,
                self._task.splits["train"],
                epochs=epochs,
                loss=loss,
                learning_rate=learning_rate,
                seed=self.context.seed,
                progress=partial(self._report, step),
            )
        finally:
            if self.context.original is not None:
                self.context.original.to("cpu")


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
