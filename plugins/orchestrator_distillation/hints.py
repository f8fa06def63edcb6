"""Intermediate features that a student learns besides the outputs. Imports torch; imported on use."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin.networks import Forward, layer_calls, run

Loss = Callable[[Any, Mapping[str, Tensor], "Tensor | None"], Tensor]


def stages(model: nn.Module, forward: Forward, inputs: Mapping[str, Tensor]) -> dict[tuple[int, ...], str]:
    """Return the layer that computes the last feature map of each resolution, by that resolution.

    Args:
        model: A network; it does not change.
        forward: Calls the network.
        inputs: A small batch.

    Returns:
        `{(H, W) of a convolutional map or (T,) of a sequence: module's name}`, in the order of the calls; without maps of one
        position (after global pooling) and without the outputs.
    """
    last: dict[tuple[int, ...], str] = {}
    for call in layer_calls(model, forward, inputs, [name for name, _ in model.named_modules() if name]):
        places = _places(call.output)
        if places:
            last.pop(places, None)  # so that the order is that of the last calls
            last[places] = call.name
    ends = {_places(output) for output in run(model, forward, inputs)}
    return {places: name for places, name in last.items() if places not in ends}


def _places(output: Any) -> tuple[int, ...]:
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (3, 4):
        return ()
    places = tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
    return places if torch.Size(places).numel() > 1 else ()


def attention(features: Tensor) -> Tensor:
    """Return the attention map: squared activations averaged over channels, normalised (Zagoruyko and Komodakis 2017).

    Args:
        features: Shape (N, C, H, W) or (N, T, C).

    Returns:
        Shape (N, places).
    """
    energy = features.float().square().mean(1 if features.ndim == 4 else 2)
    return functional.normalize(energy.flatten(1), dim=1)


def similarity(features: Tensor) -> Tensor:
    """Return the similarities between the examples of a batch, for any number of channels (Tung and Mori 2019).

    Args:
        features: Feature maps, first axis the examples.

    Returns:
        Shape (N, N), each row of length 1.
    """
    flat = features.float().flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)


def gap(kind: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance of two feature maps of one resolution, a scalar.

    Args:
        kind: "attention", or "features": the values themselves in units of the teacher's variance where both have the same
            channels (Romero et al. 2015, FitNets), else the similarities between examples.
        student: Feature map of the student.
        teacher: Feature map of the teacher.
    """
    if kind == "attention":
        return (attention(student) - attention(teacher)).square().sum(1).mean()
    if student.shape == teacher.shape:
        student, teacher = student.float(), teacher.float()
        return (student - teacher).square().mean() / teacher.var(unbiased=False).clamp(min=1e-8)
    return (similarity(student) - similarity(teacher)).square().sum(1).mean()


@contextmanager
def hinted(
    loss: Loss,
    *,
    student: nn.Module,
    teacher: nn.Module,
    pairs: Mapping[str, str],
    kind: str,
    weight: float,
) -> Iterator[Loss]:
    """Provide a loss that adds the mean gap of these pairs of layers, recorded by hooks in both networks.

    Args:
        loss: Loss that runs the teacher on the student's batch.
        student: Network in training.
        teacher: Network that `loss` runs.
        pairs: `{student's layer: teacher's layer}`.
        kind: "attention" or "features".
        weight: Weight of the mean gap.
    """
    features: dict[str, Tensor] = {}

    def record(key: str, _: nn.Module, __: Any, output: Any) -> None:
        features[key] = output

    def total(outputs: Any, inputs: Mapping[str, Tensor], labels: "Tensor | None") -> Tensor:
        value = loss(outputs, inputs, labels)
        gaps = [gap(kind, features[f"student {name}"], features[f"teacher {name}"].detach()) for name in pairs]
        return value + weight * torch.stack(gaps).mean()

    with ExitStack() as hooks:
        for name, other in pairs.items():
            for role, layer in (("student", student.get_submodule(name)), ("teacher", teacher.get_submodule(other))):
                hooks.enter_context(layer.register_forward_hook(partial(record, f"{role} {name}")))
        yield total
