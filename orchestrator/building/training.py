"""The training loop: one for all methods."""

import itertools
import math
import random as stdlib_random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.building.data import Split
from orchestrator.building.network import Inputs, as_tensors, forward
from orchestrator.errors import MethodError
from orchestrator.plugin.masks import zeros_kept

BATCH = 128
LEAST_STEPS_AN_EPOCH = 16
WEIGHT_DECAY = {"adamw": 1e-4, "sgd": 5e-4}
GRADIENT_NORM = {"adamw": 1.0, "sgd": 5.0}
MOMENTUM = 0.9
BATCH_NORM_BATCHES = 32
RUNGS = (0.0, 0.25, 0.5)
"""Shares of a training at which it is observed."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one-cycle", "cosine"]


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_size(count: int) -> int:
    """128, less for small splits, so that an epoch has steps enough."""
    return max(8, min(BATCH, count // LEAST_STEPS_AN_EPOCH))


def seed_everything(seed: int) -> None:
    """Seed all global generators: datasets draw their augmentation from any of them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    stdlib_random.seed(seed)


class TrainingBatches:
    """The train split in a seeded random order, epoch after epoch; its position can be saved."""

    def __init__(self, split: Split, size: int, seed: int) -> None:
        self._split, self._size = split, size
        self._random = np.random.default_rng(seed)
        self._order, self._at = self._random.permutation(split.count), 0

    def take(self, place: torch.device) -> tuple[Inputs, Tensor | None]:
        """Return the next batch on a device."""
        if self._split.count - self._at < min(2, self._split.count):  # batch norms cannot be trained on a single example
            self._order, self._at = self._random.permutation(self._split.count), 0
        arrays, labels = self._split.take(self._order[self._at : self._at + self._size])
        self._at += self._size
        return as_tensors(arrays, place), None if labels is None else torch.from_numpy(labels).to(place)

    def state(self) -> dict[str, Any]:
        """Return the position in the order."""
        return {"random": self._random.bit_generator.state, "order": torch.from_numpy(self._order), "at": self._at}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a position."""
        self._random.bit_generator.state = state["random"]
        self._order, self._at = state["order"].numpy(), state["at"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training at the end of an epoch, in a file of its own."""

    path: Path

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, batches: TrainingBatches
    ) -> None:
        """Write the state; a kill in the middle leaves the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "batches": batches.state(),
            "torch": torch.get_rng_state(),
            "numpy": _numpy_state(),
            "python": stdlib_random.getstate(),
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, batches: TrainingBatches) -> int:
        """Load the state and return the step to resume at; 0 if there is no state."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)  # a run directory may come from a third party
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            batches.restore(state["batches"])
            torch.set_rng_state(state["torch"])
            key, *others = state["numpy"]
            np.random.set_state(("MT19937", key.numpy().astype(np.uint32), *others))
            stdlib_random.setstate(state["python"])
            return int(state["step"])
        except Exception as error:  # a damaged file, or one of another version: pickle and torch raise anything
            raise UnusableCheckpointError(str(error)) from error

    def drop(self) -> None:
        """Delete the state of a finished training."""
        self.path.unlink(missing_ok=True)


def _numpy_state() -> tuple[Any, ...]:
    """Return the state of NumPy's global generator (MT19937) as a tensor and numbers."""
    _, key, *others = np.random.get_state(legacy=True)
    return (torch.from_numpy(np.asarray(key).astype(np.int64)), *others)


class UnusableCheckpointError(Exception):
    """An unreadable checkpoint: the training begins anew from the network as given."""


def train(
    model: nn.Module,
    split: Split,
    *,
    epochs: float,
    loss: "Callable[[object, Inputs, Tensor | None], Tensor]",
    learning_rate: float,
    seed: int,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "one-cycle",
    warm_up: float = 0.15,
    weight_decay: float | None = None,
    after_step: Callable[[], None] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[float], None] = lambda done: None,
    watch: Callable[[float, nn.Module], None] | None = None,
) -> None:
    """Train in place: see `orchestrator.plugin.Train` for what all methods may rely on.

    bfloat16 autocast where the CPU or GPU computes it natively. The weights are those after the last step, not the best on some
    split: a choice among epochs would be one more search on the validation data.

    Args:
        model: Network to train in place.
        epochs: Passes over the train split; fractions are allowed.
        learning_rate: Peak of the schedule.
        seed: Seed of everything random.
        optimizer: "adamw" or "sgd".
        schedule: "one-cycle" or "cosine".
        warm_up: Share of the steps before the peak.
        weight_decay: None for the default of the optimizer.
        after_step: Called after each update of the weights.
        split: The train split.
        loss: `loss(outputs, inputs, labels)`, a scalar tensor.
        checkpoint: File in which the state is saved at every epoch, and from which it is resumed.
        progress: Called with the share done, every ten steps.
        watch: Called with (share done, network) at the shares of `RUNGS`; an exception stops the training, whose state is saved.

    Raises:
        MethodError: The loss is not finite, or the network has no weights to train.
    """
    place, size = device(), batch_size(split.count)
    steps_an_epoch = math.ceil(split.count / size)
    steps = max(1, round(epochs * steps_an_epoch))
    # Not channels-last, which is a tenth faster: with 8 channels and fewer oneDNN's backward pass then writes past its buffers
    # (torch 2.13 on AVX-512: "double free or corruption"), and pruned networks have such layers.
    model.to(place).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise MethodError("the network has no weights that can be trained")
    decay = WEIGHT_DECAY[optimizer] if weight_decay is None else weight_decay
    updates = _optimizer(optimizer, parameters, learning_rate, decay)
    rates = _schedule(schedule, updates, learning_rate, steps, warm_up)
    seed_everything(seed)
    batches = TrainingBatches(split, size, seed)
    first = _taken_up(checkpoint, model, updates, rates, batches)
    rungs = {round(share * steps): share for share in RUNGS} if watch is not None else {}
    if watch is not None and first == 0:
        watch(rungs[0], model)
    with zeros_kept(model):
        for step in range(first, steps):
            inputs, targets = batches.take(place)
            with autocast(place):
                outputs = forward(model, inputs)
                value = loss(outputs, inputs, targets)  # inside: a loss may run a teacher, which is to be as fast
            if not torch.isfinite(value):
                raise MethodError(f"the training loss became {value.item()} at step {step} of {steps}; try a lower learning rate")
            updates.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM[optimizer])
            updates.step()
            rates.step()
            if after_step is not None:
                with torch.no_grad():
                    after_step()
            if step % 10 == 0:
                progress(step / steps)
            if checkpoint is not None and (step + 1) % steps_an_epoch == 0 and step + 1 < steps:
                checkpoint.save(step + 1, model, updates, rates, batches)
            if watch is not None and (share := rungs.get(step + 1)) is not None and step + 1 < steps:
                try:
                    watch(share, model)
                except BaseException:
                    if checkpoint is not None:
                        checkpoint.save(step + 1, model, updates, rates, batches)  # it may be resumed later
                    raise
    reestimate_batch_norms(model, (batches.take(place)[0] for _ in itertools.count()))
    model.to("cpu").eval()
    if checkpoint is not None:
        checkpoint.drop()


def _taken_up(
    checkpoint: Checkpoint | None, model: nn.Module, updates: torch.optim.Optimizer, rates: Any, batches: TrainingBatches
) -> int:
    if checkpoint is None:
        return 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()} if checkpoint.path.exists() else {}
    fresh = (updates.state_dict(), rates.state_dict(), batches.state())
    try:
        return checkpoint.restore(model, updates, rates, batches)
    except UnusableCheckpointError:
        model.load_state_dict(before)
        updates.load_state_dict(fresh[0])
        rates.load_state_dict(fresh[1])
        batches.restore(fresh[2])
        checkpoint.drop()
        return 0


def _optimizer(name: Optimizer, parameters: list[nn.Parameter], learning_rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), or SGD with Nesterov's momentum (Sutskever et al. 2013)."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=MOMENTUM, nesterov=True, weight_decay=decay)


def _schedule(
    name: Schedule, optimizer: torch.optim.Optimizer, peak: float, steps: int, warm_up: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """One-cycle (Smith 2018), or a linear warm-up and half a cosine (Loshchilov and Hutter 2017)."""
    if name == "one-cycle":
        share_rising = min(max(warm_up, 1e-3), 1 - 1e-3)
        cycled = isinstance(optimizer, torch.optim.AdamW)  # its beta1; SGD keeps its momentum
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peak, total_steps=steps + 1, pct_start=share_rising, cycle_momentum=cycled
        )
    rising = max(1, round(warm_up * steps))

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def reestimate_batch_norms(model: nn.Module, batches: Iterator[Inputs], count: int = BATCH_NORM_BATCHES) -> None:
    """Estimate the statistics of all batch norms anew, as the plain mean over some batches, in float32.

    The running averages that training leaves lean on its last few batches, and on weights that have moved since; Li et al. 2020,
    "EagleEye", show what that costs pruned networks.

    Args:
        model: Its other state stays as it is.
        batches: Inputs on the model's device; only as many are drawn as are used, none where there is no batch norm.
        count: TrainingBatches that are averaged.
    """
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    if not norms or not any(m.training for m in norms):
        return
    momenta = [norm.momentum for norm in norms]
    mode = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.train(mode[norm])
        if norm.training:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
    try:
        with torch.no_grad():
            for inputs in itertools.islice(batches, count):
                forward(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in mode.items():
            module.training = training


def autocast(place: torch.device) -> "torch.autocast | nullcontext[None]":
    """Mixed precision where the device computes it natively."""
    if place.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # without the instructions bfloat16 is emulated, and slower
    if native is not None and native():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
