"""Intermediate features that a student learns besides the outputs. Loads torch: imported only where it is needed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin.networks import Forward, run

Loss = Callable[[Any, Mapping[str, Tensor], "Tensor | None"], Tensor]


def stages(model: nn.Module, forward: Forward, inputs: Mapping[str, Tensor]) -> dict[tuple[int, ...], str]:
    """The layer that gives the last map of each resolution, by that resolution: what networks of different build share.

    Args:
        inputs: A small batch.

    Returns:
        `{(H, W) of a convolutional map or (T,) of a sequence: module's name}`, in the order of the network; maps of one place
        only (after global pooling) are left out, and so is the output itself.
    """
    found: dict[tuple[int, ...], str] = {}
    handles = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            places = _places(output)
            if places:
                found.pop(places, None)  # so that the order is that of the last ones
                found[places] = name

        return hook

    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(note(name)))
        outputs = run(model, forward, inputs)
    finally:
        for handle in handles:
            handle.remove()
    ends = {_places(output) for output in outputs}
    return {places: name for places, name in found.items() if places not in ends}


def _places(output: Any) -> tuple[int, ...]:
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (3, 4):
        return ()
    places = tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
    return places if torch.Size(places).numel() > 1 else ()


def attention(features: Tensor) -> Tensor:
    """Where a map is active: squared activations summed over channels, each example's of length 1 (Zagoruyko and Komodakis 2017).

    Args:
        features: Shape (N, C, H, W) or (N, T, C).

    Returns:
        Shape (N, places).
    """
    energy = features.float().square().mean(1 if features.ndim == 4 else 2)
    return functional.normalize(energy.flatten(1), dim=1)


def similarity(features: Tensor) -> Tensor:
    """Which examples of a batch a layer finds alike, whatever its number of channels (Tung and Mori 2019).

    Args:
        features: First axis the examples.

    Returns:
        Shape (N, N), each row of length 1.
    """
    flat = features.float().flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)


def gap(kind: str, student: Tensor, teacher: Tensor) -> Tensor:
    """How far two maps of one resolution are apart, a scalar.

    Args:
        kind: "attention", or "features": the values themselves in units of the teacher's variance where both have the same
            channels (Romero et al. 2015, FitNets), else the similarities between examples.
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
    """A loss that adds the mean gap of those pairs of layers to another; hooks stand in both networks meanwhile.

    Args:
        loss: Runs the teacher on the same batch as the student has just seen.
        pairs: `{student's layer: teacher's layer}`.
        weight: Of the mean gap.
    """
    seen: dict[str, Tensor] = {}

    def keep(key: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[key] = output

        return hook

    handles = []
    for own, other in pairs.items():
        handles.append(student.get_submodule(own).register_forward_hook(keep(f"student {own}")))
        handles.append(teacher.get_submodule(other).register_forward_hook(keep(f"teacher {own}")))

    def whole(outputs: Any, inputs: Mapping[str, Tensor], labels: "Tensor | None") -> Tensor:
        value = loss(outputs, inputs, labels)
        gaps = [gap(kind, seen[f"student {own}"], seen[f"teacher {own}"].detach()) for own in pairs]
        return value + weight * torch.stack(gaps).mean()

    try:
        yield whole
    finally:
        for handle in handles:
            handle.remove()
