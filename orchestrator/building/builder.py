"""Builder of exported artifacts: the steps of a recipe in order."""

import contextlib
import copy
import itertools
import json
import shutil
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from orchestrator.building import network, training
from orchestrator.building.cache_keys import digest_of
from orchestrator.building.export import export_onnx
from orchestrator.building.paths import checkpoints
from orchestrator.building.protocol import ASKING
from orchestrator.building.read_values import ReadValues
from orchestrator.building.recipe_chain import RecipeChain, StepFailed, guarded
from orchestrator.building.rungs import RungSchedule, Stopped
from orchestrator.building.step_cache import ORIGINAL, Identity, StepCache, Trained
from orchestrator.building.store import Store
from orchestrator.building.task import LoadedTask
from orchestrator.errors import FULL, MethodError, Refused
from orchestrator.plugin.masks import reset_zeros
from orchestrator.plugin.method import EVERYTHING, BuildContext, Method, Need, OnnxMethod, TorchMethod, TorchToOnnxMethod
from orchestrator.plugin.parameters import Choice, Number, checked
from orchestrator.plugin.reads import Access, restricted
from orchestrator.values.recipe import Recipe, Step
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

KEPT_NETWORKS = 8
WORTH_KEEPING_S = 0.5  # results that take less are rebuilt
OFFERED = "offered on the original"

Report = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Offer of a method: its search ranges, or the reason why it is refused."""

    method: str
    parameters: tuple[Choice | Number, ...] = ()
    refused: str | None = None


OFFER: TypeAdapter[Any] = TypeAdapter(Offer)


class Builder:
    """Builder of recipes for one task on one target.

    Recipes share prefixes: the last networks are kept in memory (least recently used), and behind them in the store.

    Args:
        loss: Training loss of the task, `f(outputs, labels)`; None without labels.
        workspace: Folder of the run's exported prefixes and checkpoints.
        report: Called with (current activity, share done).
        student: Factory of the network given by `--student`.
        trains: False to skip trainings, which gives an untrained proxy of the recipe's model.
        ladder: Observes trainings and may stop them; None: none are observed.
        identity: Identity of the task in the keys of results.
        answers: The values of the reads `task_loss` and `student` in keys.
        remembered: Folder of the tables that methods keep for the whole run; None: in the workspace.
        store: Store of results for other runs; None: none.

    Attributes:
        reused: True if the last model came from the store as a whole.
        took_s: Seconds that building the last model took, whenever it was built.
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
        ladder: RungSchedule | None = None,
        identity: Identity | None = None,
        answers: Mapping[str, Any] | None = None,
        remembered: Path | None = None,
        store: Store | None = None,
    ) -> None:
        self._ladder, self.reused, self.took_s = ladder, False, 0.0
        self._task, self._methods, self._report, self._trains = task, methods, report, trains
        self._exports = workspace / "exports"
        self._checkpoints = checkpoints(workspace)
        own = Store(remembered or workspace / "remembered", bound=sys.maxsize, note=lambda _: None)
        own_values = {"epochs": list(epochs), "task_loss": None, "student": None, **(answers or {})}
        self._results = StepCache(
            [own, *([store] if store else [])],
            identity or Identity(),
            ReadValues(target, description, own_values),
            seed=seed,
            trains=trains,
        )
        self._chain = RecipeChain(methods, self._results)
        shutil.rmtree(self._exports, ignore_errors=True)  # a builder process that was killed may have left a partial file
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
            remember=partial(self._remember, Access("", EVERYTHING), EVERYTHING, ""),
            student=student,
            workspace=workspace,
            seed=seed,
            epochs=epochs,
        )

    def offers(self) -> list[Offer]:
        """Return the offer of every method on the original; a kept one where all that the method reads is the same."""
        found = []
        for name, method in sorted(self._methods.items()):
            self._report(f"{ASKING}{name}", 0.0)  # if the process dies now, this method is left out
            address = self._results.address(OFFERED, Step(method=name, version=method.version), method)
            reads = method.reads | method.offer_reads
            kept = self._results.value("offer", self._results.key(address, reads))
            if kept is None:
                access = Access(name, reads)
                offer, lasts = self._offer(method, access)
                kept = OFFER.dump_python(offer, mode="json")
                if lasts:
                    self._results.keep_value("offer", self._results.finished(address, reads, trained=access.trained), kept)
            found.append(OFFER.validate_python(kept))
        return found

    def _offer(self, method: Method, access: Access) -> tuple[Offer, bool]:
        """Return a method's offer, and False if it may be another the next time: the method failed."""
        try:
            self._check_needs(method)
            context = self._context(self._exports, (), method, None, access)
            parameters = method.legal(context.target)
            if isinstance(method, TorchMethod | TorchToOnnxMethod):
                parameters = method.offer(self._original(), parameters, context)
            elif isinstance(method, OnnxMethod):
                exported = self._exported(())
                self._report(f"{ASKING}{method.name}", 0.0)  # the export has reported its own activity
                parameters = method.offer(exported, parameters, context)
        except (Refused, MethodError) as reason:
            return Offer(method=method.name, refused=str(reason).removeprefix(f"{method.name}: ")), True
        except OSError as error:
            if error.errno in FULL:
                raise
            return Offer(method=method.name, refused=f"it failed: {type(error).__name__}: {error}".splitlines()[0]), False
        except Exception as error:  # a plugin's own fault takes only that method out of the search
            return Offer(method=method.name, refused=f"it failed: {type(error).__name__}: {error}".splitlines()[0]), False
        return Offer(method=method.name, parameters=tuple(parameters)), True  # type: ignore[arg-type]  # there are no others

    def build(self, recipe: Recipe, folder: Path) -> Path:
        """Build a recipe and return its exported model, `folder/model.onnx`.

        Raises:
            StepFailed: A step raised; names it.
            ParameterError: A parameter is illegal.
        """
        start = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        steps = tuple(self._checked(step) for step in recipe.steps)
        on_modules = self._chain.on_modules(steps)
        final = folder / "model.onnx"
        key = self._chain.file(steps)
        self.reused = False
        if self._results.file(key, final):
            self.reused = not self._results.made_here(key)
            self._recount(steps)
            self.took_s = self._results.value("seconds", key) or time.monotonic() - start
            return final
        model = self._on_files(steps, on_modules, folder)
        if model != final:
            last = steps[-1].method if steps else "export"
            guarded(last, partial(shutil.copyfile, model, final))  # a method may name a file that it never wrote
        self.took_s = time.monotonic() - start
        key = self._chain.file(steps)
        self._results.keep_value("seconds", key, round(self.took_s, 3))
        self._results.keep_file(key, final)
        return final

    def _on_files(self, steps: Sequence[Step], on_modules: int, folder: Path) -> Path:
        """Return the file after all steps, not yet in its final place."""
        prefix, rest = tuple(steps[:on_modules]), list(steps[on_modules:])
        if rest and isinstance(self._methods[rest[0].method], TorchToOnnxMethod):
            model = self._file(folder, prefix, rest.pop(0), lambda: copy.deepcopy(self._network(prefix, folder)))
        else:
            model = self._exported(prefix, folder)
        for k, step in enumerate(rest, len(steps) - len(rest)):
            model = self._file(folder, steps[:k], step, partial(Path, model))
        return model

    def _file(self, folder: Path, before: Sequence[Step], step: Step, given: Callable[[], Any]) -> Path:
        """Return the file that a step builds from its input."""
        method: Any = self._methods[step.method]
        keys = self._chain.keys((*before, step))
        scratch = folder / f"{step.method}.work"
        scratch.mkdir(parents=True, exist_ok=True)
        if self._results.file(keys[-1], scratch / "kept.onnx"):
            self._recount((*before, step))
            return scratch / "kept.onnx"
        model = given()
        made, key, seconds = self._step(folder, before, step, partial(method.transform, model))
        path = Path(made)
        if seconds > WORTH_KEEPING_S and path.is_file():
            self._results.keep_file(key, path)
        return path

    def _step(self, folder: Path, before: Sequence[Step], step: Step, transform: Callable[..., Any]) -> tuple[Any, str, float]:
        """Run a step by `transform(parameters, context)`; return its result, the result's key and the seconds taken."""
        self._report(step.method, 0.0)
        method, ladder = self._methods[step.method], self._ladder
        access = Access(method.name, method.reads)
        address = self._results.address(self._chain.given(before, method), step, method)
        if ladder is not None and (past := self._results.trained(self._results.key(address, method.reads))):
            ladder.stop_if_below(past.rungs)  # a training is deterministic: it would reach the same rungs
        context = self._context(folder, before, method, step, access)
        start, seen, trained_s = time.monotonic(), len(ladder.rungs) if ladder else 0, ladder.training_s if ladder else 0.0
        try:
            made = guarded(step.method, partial(transform, step.parameters, context))
        except StepFailed:
            for kept in self._checkpoints.glob(f"{self._key(before, step)}-*"):
                kept.unlink(missing_ok=True)  # the resumed training would fail again
            raise
        except Stopped:
            self._finished(address, access, method, seen, trained_s)
            raise
        return made, self._finished(address, access, method, seen, trained_s), time.monotonic() - start

    def _finished(self, address: str, access: Access, method: Method, seen: int, trained_s: float) -> str:
        """Keep the course of a step's trainings; return the key of its result."""
        key, ladder = self._results.finished(address, method.reads, trained=access.trained), self._ladder
        if ladder is not None and access.trained:
            trained = Trained(rungs=tuple(ladder.rungs[seen:]), seconds=ladder.training_s - trained_s)
            self._results.keep_trained(key, trained.after(self._results.trained(key)))
        return key

    def _recount(self, steps: Sequence[Step]) -> None:
        """Report the trainings of steps with kept results to the ladder."""
        for key in self._chain.keys(steps) if self._ladder is not None else ():
            if self._ladder is not None and (trained := self._results.trained(key)):
                self._ladder.recount(trained.rungs, trained.seconds)

    def _network(self, steps: tuple[Step, ...], folder: Path) -> nn.Module:
        """Return the network after these steps, built from the longest kept prefix; the caller must not change it."""
        if not steps:
            original: nn.Module = self._original()
            return original
        made = self._at_hand(self._chain.keys(steps)[-1])
        if made is not None:
            self._recount(steps)
            return made
        step = steps[-1]
        method = self._methods[step.method]
        if not isinstance(method, TorchMethod):
            raise StepFailed(step.method, "is no method on torch modules")
        module = copy.deepcopy(self._network(steps[:-1], folder))
        made, key, seconds = self._step(folder, steps[:-1], step, partial(method.transform, module))
        finished: nn.Module = made.eval()
        reset_zeros(finished)
        if seconds > WORTH_KEEPING_S:
            self._results.keep_network(key, finished)
        self._hold(key, finished)
        return finished

    def _at_hand(self, key: str) -> "nn.Module | None":
        """Return a network from memory or from the store; None if neither has it."""
        if key in self._networks:
            self._networks.move_to_end(key)
            return self._networks[key]
        found = self._results.network(key)
        if found is not None:
            self._hold(key, found)
        return found

    def _hold(self, key: str, module: nn.Module) -> None:
        self._networks[key] = module
        while len(self._networks) > KEPT_NETWORKS:
            dropped, _ = self._networks.popitem(last=False)
            self._export_path(self._results.exported(dropped)).unlink(missing_ok=True)

    def _exported(self, steps: tuple[Step, ...], folder: Path | None = None) -> Path:
        """Return the export of the network after these steps."""
        key = self._chain.file(steps)
        path = self._export_path(key)
        if path.exists() or self._results.file(key, path):
            self._recount(steps)
            return path
        made = self._network(steps, folder or self._exports) if self._task.module is not None else None
        key = self._results.exported(self._chain.keys(steps)[-1] if steps else ORIGINAL)
        path = self._export_path(key)
        self._report("exporting", 0.0)
        start = time.monotonic()
        guarded("export", partial(self._export, path, made))
        if time.monotonic() - start > WORTH_KEEPING_S:
            self._results.keep_file(key, path)
        return path

    def _export_path(self, key: str) -> Path:
        return self._exports / f"{key}.onnx"

    def _original(self) -> Any:
        return self._task.module

    def _export(self, path: Path, module: "nn.Module | None") -> None:
        partial_path = path.with_suffix(".partial")
        if module is None and self._task.file is not None:
            onnx.save(onnx.load(self._task.file), partial_path)  # includes external weights
        elif module is not None:
            export_onnx(module, self.context.example, partial_path)
        partial_path.replace(path)

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

    def _context(self, folder: Path, before: Sequence[Step], method: Method, step: Step | None, access: Access) -> BuildContext:
        workspace = folder / f"{method.name}.work"
        workspace.mkdir(parents=True, exist_ok=True)
        own = step or Step(method=method.name, version=method.version)
        train = partial(self._train, method.name, itertools.count(), self._key(before, own))

        def noted(model: nn.Module, **wishes: Any) -> None:
            access.trained = True
            train(model, **wishes)

        # Not of the step's own parameters: what depends on one of them has it in its key.
        scope = self._results.address(self._chain.given(before, method), replace(own, parameters={}), method)
        made = replace(
            self.context,
            workspace=workspace,
            train=noted,
            export=partial(self._export_to, workspace),
            remember=partial(self._remember, access, method.reads, scope),
        )
        return restricted(made, access)

    def _key(self, before: Sequence[Step], step: Step) -> str:
        """Return the digest of a step and the steps before it."""
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
            # Candidates are chosen by the validation labels, so methods must not use them.
            hidden = labels is None or name == "validation"
            yield network.as_tensors(inputs), None if hidden else torch.from_numpy(labels)

    def _remember(self, access: Access, reads: frozenset[str], scope: str, key: str, compute: Callable[[], Any]) -> Any:
        address = digest_of([scope, key])
        kept = self._results.value("table", self._results.key(address, reads))
        if kept is None:
            before, access.trained = access.trained, False
            with access.limited(reads):  # an offer may read more than the result depends on; a table serves both
                value = compute()
            kept = {"trained": access.trained, "value": json.loads(json.dumps(value))}  # keys are strings, tuples are lists
            self._results.keep_value("table", self._results.finished(address, reads, trained=access.trained), kept)
            access.trained |= before
        access.trained |= kept["trained"]
        return kept["value"]

    def _export_to(self, folder: Path, module: nn.Module) -> Path:
        path = folder / "exported.onnx"
        reset_zeros(module)
        export_onnx(module.eval(), self.context.example, path)
        return path

    def _train(self, step: str, calls: Iterator[int], key: str, model: nn.Module, **wishes: Any) -> None:
        if not self._trains:
            model.to("cpu").eval()
            return
        original, split, call = self.context.original, self._task.splits["train"], next(calls)
        if original is not None:
            original.to(training.device())
        watch = None if self._ladder is None else self._ladder.watch(step, call, float(wishes.get("epochs", 0.0)), split.count)
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
