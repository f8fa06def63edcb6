"""The training loop: one for all methods."""

import math
import random as stdlib_random
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.building.data import Split
from orchestrator.building.network import Inputs, as_tensors, forward
from orchestrator.errors import MethodError

BATCH = 128
LEAST_STEPS_AN_EPOCH = 16
WEIGHT_DECAY = 1e-4
WARM_UP = 0.15
GRADIENT_NORM = 1.0


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_size(count: int) -> int:
    """128, less for small splits, so that an epoch has steps enough."""
    return max(8, min(BATCH, count // LEAST_STEPS_AN_EPOCH))


def seed_everything(seed: int) -> None:
    """The global generators too: datasets draw their augmentation from any of them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    stdlib_random.seed(seed)


def train(
    model: nn.Module,
    split: Split,
    *,
    epochs: float,
    loss: "Callable[[object, Inputs, Tensor | None], Tensor]",
    learning_rate: float,
    seed: int,
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Train in place: AdamW (Loshchilov and Hutter 2019) under a one-cycle schedule (Smith 2018), gradients clipped, seeded.

    bfloat16 autocast where the CPU or GPU computes it natively. The weights are those after the last step.

    Args:
        split: The train split.
        epochs: Passes over it; fractions are served.
        loss: `loss(outputs, inputs, labels)`, a scalar tensor.
        progress: Called with the share done, now and then.

    Raises:
        MethodError: the loss is not finite.
    """
    place, size = device(), batch_size(split.count)
    steps = max(1, round(epochs * math.ceil(split.count / size)))
    seed_everything(seed)
    random = np.random.default_rng(seed)
    # Not channels-last, which is a tenth faster: with 8 channels and fewer oneDNN's backward pass then writes past its buffers
    # (torch 2.13 on AVX-512: "double free or corruption"), and pruned networks have such layers.
    model.to(place).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise MethodError("the network has no weights that can be trained")
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=WARM_UP)
    order, at = random.permutation(split.count), 0
    for step in range(steps):
        if at >= split.count:
            order, at = random.permutation(split.count), 0
        arrays, labels = split.take(order[at : at + size])
        at += size
        inputs = as_tensors(arrays, place)
        targets = None if labels is None else torch.from_numpy(labels).to(place)
        with _autocast(place):
            outputs = forward(model, inputs)
            value = loss(outputs, inputs, targets)  # inside: a loss may run a teacher, which is to be as fast
        if not torch.isfinite(value):
            raise MethodError(f"the training loss became {value.item()} at step {step} of {steps}; try a lower learning rate")
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            progress(step / steps)
    model.to("cpu").eval()


def _autocast(place: torch.device) -> "torch.autocast | nullcontext[None]":
    if place.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # without the instructions bfloat16 is emulated, and slower
    if native is not None and native():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
