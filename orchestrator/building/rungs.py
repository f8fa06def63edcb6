"""The rungs of a training: its network is looked at on the way, and a training that can no longer lead anywhere is stopped.

The quality is taken in torch, on the first examples of the validation split. It chooses nothing but whether to go on: what a
candidate is worth is what its exported file scores.
"""

import contextlib
import random as stdlib_random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import nn

from orchestrator.building import network
from orchestrator.building.task import LoadedTask
from orchestrator.measuring.quality import score
from orchestrator.plugin.metric import Metric
from orchestrator.values.direction import Direction
from orchestrator.values.results import Floor, Rung

EXAMPLES = 512
BATCH = 128
WORTH = 10
"""A training of fewer examples than so many times those of a look is not looked at: it would cost more than it saves."""
SLOWEST_S = 20.0


class Stopped(BaseException):
    """A training was stopped on a rung. No Exception: a method that catches those must not go on with half a training."""

    def __init__(self, rung: Rung, floor: float) -> None:
        super().__init__(f"{rung.quality:.4g} after {rung.share:.0%} of the training, and {floor:.4g} were needed")
        self.rung, self.floor = rung, floor


class Judge:
    """The metric of a network in torch, on the first validation examples.

    Args:
        examples: At most so many.
    """

    def __init__(self, task: LoadedTask, metric: Metric, *, examples: int = EXAMPLES) -> None:
        self._task, self._metric = task, metric
        self.examples = min(examples, task.splits["validation"].count)
        self._data: list[tuple[network.Inputs, np.ndarray | None]] = []
        self._reference: list[np.ndarray] | None = None

    def __call__(self, model: nn.Module) -> float:
        """Its quality, the network and every random stream left as they were.

        Raises:
            Exception: whatever the network or the metric raise; a network in training may have outputs of another form.
        """
        with untouched_random():
            if not self._data:
                split = self._task.splits["validation"]
                self._data = [(network.as_tensors(inputs), labels) for inputs, labels in split.batches(BATCH, self.examples)]
            if self._reference is None and self._task.module is not None and self._metric.needs_reference:
                self._reference = self._outputs(self._task.module)
            kept = [labels for _, labels in self._data if labels is not None]
            labels = np.concatenate(kept) if kept else None
            return score(self._metric, self._outputs(model), labels, self._reference)

    def _outputs(self, model: nn.Module) -> list[np.ndarray]:
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        mode = {module: module.training for module in model.modules()}
        model.eval()
        found: list[list[np.ndarray]] = []
        try:
            with torch.no_grad():
                for inputs, _ in self._data:
                    outputs = network.tensors(network.forward(model, {k: v.to(place) for k, v in inputs.items()}))
                    found.append([output.float().cpu().numpy() for output in outputs.values()])
        finally:
            for module, training in mode.items():
                module.training = training
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]


class RungSchedule:
    """Looks at the trainings of one build after the other.

    Args:
        judge: A network's quality.
        direction: Of the metric.

    Attributes:
        rungs: What was seen since `begin`.
        training_s: Seconds that trainings took since then, the looking included.
    """

    def __init__(self, judge: Judge, direction: Direction) -> None:
        self._judge, self._sign = judge, direction.sign
        self._floors: Mapping[str, Floor] = {}
        self._able = True
        self.rungs: list[Rung] = []
        self.training_s = 0.0

    def begin(self, floors: Mapping[str, Floor]) -> None:
        """Begin a new build, with the rungs at which it is stopped by `Rung.key`."""
        self._floors, self.rungs, self.training_s = floors, [], 0.0

    def watch(self, step: str, call: int, epochs: float, examples: int) -> Callable[[float, nn.Module], None] | None:
        """Return the observer of a training, called with (share done, network); None if the training is too short.

        Args:
            step: Name of the method that trains.
            call: Number of the training within the step.
            epochs: Passes over the train split.
            examples: Of an epoch.
        """
        if not self._able or epochs * examples < WORTH * self._judge.examples:
            return None
        return lambda share, model: self._look(step, call, epochs, share, model)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the body as training."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.training_s += time.monotonic() - start

    def recount(self, rungs: Iterable[Rung], seconds: float) -> None:
        """Count a past training whose result is reused."""
        self.rungs += rungs
        self.training_s += seconds

    def stop_if_below(self, rungs: Iterable[Rung]) -> None:
        """Stop a training that would be stopped at the last of these rungs, which it reached before.

        Raises:
            Stopped: it would be stopped there.
        """
        seen = list(rungs)
        if seen and (floor := self._floor(seen[-1])) is not None:
            self.rungs += seen
            raise Stopped(seen[-1], floor)

    def _floor(self, rung: Rung) -> float | None:
        """Return the quality needed on a rung, if the training is stopped for lack of it."""
        floor = self._floors.get(rung.key)
        return floor.needed if floor is not None and floor.above(rung.quality, self._sign) else None

    def _look(self, step: str, call: int, epochs: float, share: float, model: nn.Module) -> None:
        start = time.monotonic()
        try:
            quality = self._judge(model)
        except Exception:  # a network in training need not be one that can be scored
            return
        finally:
            self._able = self._able and time.monotonic() - start < SLOWEST_S
        rung = Rung(step=step, call=call, epochs=epochs, share=share, quality=quality, examples=self._judge.examples)
        self.rungs.append(rung)
        if (floor := self._floor(rung)) is not None:
            raise Stopped(rung, floor)


@contextlib.contextmanager
def untouched_random() -> Iterator[None]:
    """Give every random stream back as it was: a training that is looked at must not differ from one that is not."""
    state, cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    arrays, plain = np.random.get_state(), stdlib_random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(arrays)
        stdlib_random.setstate(plain)
