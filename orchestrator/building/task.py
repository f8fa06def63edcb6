"""The task as loaded: a network (torch module or ONNX file) and its data, checked against each other before any work."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orchestrator.building import network
from orchestrator.building.data import DEFAULT_INPUT, Split, load_data, renamed, specs
from orchestrator.building.onnx_model import OnnxModel
from orchestrator.building.references import call_factory
from orchestrator.errors import InputError, unknown
from orchestrator.plugin.registry import Registry
from orchestrator.values.task import TaskSpec, TensorSpec

EXAMPLES_DIGESTED = 1000
EXAMPLES_TRIED = 2


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A network and its data.

    Attributes:
        module: The network in eval mode on the CPU; None for an ONNX file.
        file: The ONNX file; None for a torch module.
        classes: Number of classes where labels are class indices and the first output holds one logit each.
        label_problem: Why the labels are no class indices where they look like some: an error for metrics and losses of classes.
        weights_digest: SHA-256 of the weights, by name.
        data_digest: SHA-256 over the inputs and labels of validation and test, and what can be said of the other splits: their
            length, and their first examples unless a dataset draws them.
    """

    spec: TaskSpec
    module: nn.Module | None
    file: Path | None
    splits: dict[str, Split]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: int | None
    label_problem: str | None
    weights_digest: str
    data_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of both: the same task has the same digest."""
        return hashlib.sha256(f"{self.weights_digest} {self.data_digest}".encode()).hexdigest()


def load_task(spec: TaskSpec, registry: Registry) -> LoadedTask:
    """Load the model and the data and run the network on examples.

    Args:
        registry: Plugins that load models and provide ready-made tasks.
        spec: `model` and `data` are set.

    Raises:
        InputError: one line; the file, factory, shape, type or label that is wrong, and the fix.
    """
    model, data = spec.model or "", spec.data or ""
    source = _load_model(model, registry)
    splits = load_data(data)
    required, allowed = (source.input_names,) * 2 if isinstance(source, OnnxModel) else network.input_names(source)
    if {tensor.name for tensor in specs(splits["validation"])} == {DEFAULT_INPUT}:
        if len(required) > 1:
            raise InputError(
                f"--data '{data}' gives one nameless array, but the model takes {len(required)} inputs: "
                f"give a mapping with the names {', '.join(required)}"
            )
        name = next(iter([*required, *(allowed or ())]), "input")
        splits = {key: renamed(split, name) for key, split in splits.items()}
    given = specs(splits["validation"])
    # A single input is given by position, so its name is the user's own; an ONNX file's inputs have names only.
    if isinstance(source, OnnxModel) or len(given) > 1:
        for tensor in given:
            if allowed is not None and tensor.name not in allowed:
                raise InputError(f"--data '{data}': {unknown('input', tensor.name, allowed)}")
        missing = set(required) - {tensor.name for tensor in given}
        if missing:
            raise InputError(f"--data '{data}' has no input {', '.join(sorted(missing))}, which the model needs")
    _check_input_shapes(spec.input_shapes, given)
    example = splits["validation"].take(range(min(EXAMPLES_TRIED, splits["validation"].count)))[0]
    outputs = _try(source, example, model)
    classes, label_problem = _classes(data, splits, outputs)
    return LoadedTask(
        spec=spec,
        module=None if isinstance(source, OnnxModel) else source,
        file=source.path if isinstance(source, OnnxModel) else None,
        splits=splits,
        inputs=given,
        outputs=tuple(TensorSpec(name=n, dtype=a.dtype.name, shape=a.shape[1:]) for n, a in outputs.items()),
        classes=classes,
        label_problem=label_problem,
        weights_digest=digest_of_weights(source),
        data_digest=_data_digest(splits),
    )


def _load_model(reference: str, registry: Registry) -> "nn.Module | OnnxModel":
    if reference.endswith(".onnx"):
        return OnnxModel(Path(reference))
    answer: Any = registry.load_model(reference)
    if answer is None:
        try:
            answer = call_factory(reference, "--model")
        except InputError as error:
            raise InputError("; ".join([str(error), *registry.notes])) from error  # one of them may have known it
    if not isinstance(answer, nn.Module):
        raise InputError(f"--model '{reference}' must return a torch.nn.Module, but got a {type(answer).__name__}")
    if not any(True for _ in answer.parameters()):
        raise InputError(f"--model '{reference}' returned a network without weights")
    for name, tensor in answer.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"--model '{reference}': the weight '{name}' holds NaN or infinity")
    return answer.cpu().eval()


def _try(source: "nn.Module | OnnxModel", example: dict[str, np.ndarray], reference: str) -> dict[str, np.ndarray]:
    """Return the outputs on the first validation examples after checking them."""
    shown = ", ".join(f"{name or 'input'}: {a.dtype} {a.shape}" for name, a in example.items())
    count = len(next(iter(example.values())))
    try:
        if isinstance(source, OnnxModel):
            outputs = source.run(example)
        else:
            with torch.no_grad():
                found = network.tensors(network.forward(source, network.as_tensors(example)))
            outputs = {n: (t.float() if t.is_floating_point() else t).numpy() for n, t in found.items()}
    except InputError:
        raise
    except Exception as error:  # the user's forward may raise anything
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--model '{reference}' fails on the data ({shown}): {text}") from error
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != count:
            raise InputError(
                f"--model '{reference}': the output '{name}' has shape {array.shape} for {count} examples; "
                f"its first axis must be the examples"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"--model '{reference}': the output '{name}' holds NaN or infinity on validation examples")
    return outputs


def _classes(data: str, splits: dict[str, Split], outputs: dict[str, np.ndarray]) -> tuple[int | None, str | None]:
    """Return the number of classes of a classification, or the reason why the labels are no class indices."""
    first = next(iter(outputs.values()))
    labels = {name: _labels(split) for name, split in splits.items()}
    given = {name: array for name, array in labels.items() if array is not None}
    if not given or first.ndim < 2 or not all(array.dtype.kind in "iu" for array in given.values()):
        return None, None
    count = int(first.shape[1] if first.ndim > 3 else first.shape[-1])
    positions = first.shape[:1] + (first.shape[2:] if first.ndim > 3 else first.shape[1:-1])
    for name, array in given.items():
        if array.shape[1:] != positions[1:]:
            return None, None
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= count:
            return None, (
                f"--data '{data}', split '{name}': labels must be 0 to {count - 1}, for the model has {count} outputs, "
                f"but they go from {low} to {high}"
            )
    return count, None


def _labels(split: Split) -> np.ndarray | None:
    """Return the labels; of a dataset, those of the first examples."""
    return split.labels if split.inputs is not None else split.take(range(min(split.count, 64)))[1]


def _check_input_shapes(shapes: Mapping[str, tuple[int, ...]], given: tuple[TensorSpec, ...]) -> None:
    by_name = {spec.name: spec for spec in given}
    for name, shape in shapes.items():
        if name not in by_name:
            raise InputError(f"--input-shape: {unknown('input', name, by_name)}")
        if tuple(shape[1:]) != by_name[name].shape:
            raise InputError(f"--input-shape: {name} is {shape}, but the data have examples of shape {by_name[name].shape}")


def digest_of_weights(source: "nn.Module | OnnxModel") -> str:
    """SHA-256 of the weights, by name; of the whole content of an ONNX file."""
    digest = hashlib.sha256()
    if isinstance(source, OnnxModel):
        digest.update(source.content())
    else:
        for name, tensor in sorted(source.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def digest_of_training_data(splits: dict[str, Split]) -> str:
    """SHA-256 of all that trainings and calibrations read, where it is in memory; of a dataset its length alone is known."""
    digest = hashlib.sha256()
    for key, split in sorted(splits.items()):
        digest.update(f"{key} {split.count}".encode())
        for name, array in sorted({**(split.inputs or {}), **({} if split.labels is None else {"": split.labels})}.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _data_digest(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for key, split in sorted(splits.items()):
        digest.update(f"{key} {split.count}".encode())
        scored = key in ("validation", "test")
        if not scored and split.inputs is None:
            continue  # a dataset's examples may be augmented: other ones each time
        inputs, labels = split.take(range(split.count if scored else min(split.count, EXAMPLES_DIGESTED)))
        for name, array in sorted({**inputs, **({} if labels is None else {"": labels})}.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
