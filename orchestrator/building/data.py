"""Data splits: what a user's factory or .npz gives, checked, as arrays with one shape for all that follows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from orchestrator.building.references import call_factory
from orchestrator.errors import InputError, unknown
from orchestrator.values.task import SPLITS, TensorSpec

DEFAULT_INPUT = ""  # stands for the network's only input until its name is known


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split.

    Attributes:
        inputs: `{input name: array}`, first axis the examples; None for a dataset that is read item by item.
        labels: First axis the examples, or None.
        dataset: A torch map-style dataset of (inputs, label) pairs, kept for the train split, where augmentation lives.
    """

    name: str
    count: int
    inputs: dict[str, np.ndarray] | None
    labels: np.ndarray | None
    dataset: Any = None

    def arrays(self) -> "Split":
        """Return the split with all its examples in memory."""
        return self if self.inputs is not None else _materialise(self, range(self.count))

    def take(self, indices: "np.ndarray | range") -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return examples as one batch."""
        if self.inputs is None:
            part = _materialise(self, indices)
            return part.inputs or {}, part.labels
        index = np.asarray(indices)
        labels = None if self.labels is None else self.labels[index]
        return {name: array[index] for name, array in self.inputs.items()}, labels

    def batches(self, batch: int, limit: int | None = None) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Yield the examples in order, at most `limit` of them."""
        count = self.count if limit is None else min(limit, self.count)
        for start in range(0, count, batch):
            yield self.take(range(start, min(start + batch, count)))


def load_data(reference: str) -> dict[str, Split]:
    """All splits of a data reference, checked.

    Raises:
        InputError: see interface.md, "A data factory"; one line that names the split and the fix.
    """
    raw = _read_npz(Path(reference)) if reference.endswith(".npz") else call_factory(reference, "--data")
    where = f"--data '{reference}'"
    if not isinstance(raw, Mapping):
        raise InputError(f"{where} must return a mapping of splits, but got a {type(raw).__name__}")
    for name in raw:
        if name not in SPLITS:
            raise InputError(f"{where}: {unknown('split', str(name), SPLITS)}")
    if "validation" not in raw:
        raise InputError(f"{where} has no validation split (it has {', '.join(raw) or 'nothing'}); the search chooses by it")
    splits = {name: _split(f"{where}, split '{name}'", name, value) for name, value in raw.items()}
    first = splits["validation"]
    for split in splits.values():
        _same_form(where, first, split)
    return splits


def specs(split: Split) -> tuple[TensorSpec, ...]:
    """Names, dtypes and shapes of the inputs."""
    inputs = split.take(range(1))[0]
    return tuple(TensorSpec(name=n, dtype=a.dtype.name, shape=tuple(a.shape[1:])) for n, a in inputs.items())


def renamed(split: Split, name: str) -> Split:
    """Return the split with its single unnamed input under the network's name for it."""
    if split.inputs is None:
        return Split(name=split.name, count=split.count, inputs=None, labels=None, dataset=_Named(split.dataset, name))
    return Split(name=split.name, count=split.count, inputs={name: split.inputs[DEFAULT_INPUT]}, labels=split.labels)


class _Named:
    """A dataset whose items' only input has been given a name."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        inputs, label = self.dataset[index]
        return {self.name: inputs}, label

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [({self.name: inputs}, label) for inputs, label in _items(self.dataset, indices)]


def _read_npz(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"--data: there is no file '{path}'")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile) as error:
        raise InputError(f"--data '{path}' is no readable .npz of plain arrays: {str(error).splitlines()[0]}") from None
    splits: dict[str, Any] = {}
    for key, array in arrays.items():
        split, _, kind = key.partition("_")
        base, dot, name = kind.partition(".")
        if split not in SPLITS or base not in ("x", "y") or (dot and base == "y"):
            raise InputError(f"--data '{path}': the array '{key}' is not named SPLIT_x, SPLIT_y or SPLIT_x.INPUT")
        inputs, _ = splits.setdefault(split, ({}, None))
        if base == "y":
            splits[split] = (inputs, array)
        else:
            inputs[name if dot else DEFAULT_INPUT] = array
    for split, (inputs, labels) in splits.items():
        if not inputs:
            raise InputError(f"--data '{path}' has '{split}_y' but no '{split}_x'")
        splits[split] = (inputs[DEFAULT_INPUT] if set(inputs) == {DEFAULT_INPUT} else inputs, labels)
    return splits


def _split(where: str, name: str, value: Any) -> Split:
    if isinstance(value, tuple | list) and len(value) == 2 and not hasattr(value, "__dict__"):
        inputs, labels = _inputs(where, value[0]), _labels(where, value[1])
        count = len(next(iter(inputs.values())))
        for key, array in inputs.items():
            if len(array) != count:
                raise InputError(f"{where}: input '{key}' has {len(array)} examples, another {count}; they must be equal")
        if labels is not None and len(labels) != count:
            raise InputError(f"{where}: {count} inputs but {len(labels)} labels; they must be equal")
        split = Split(name=name, count=count, inputs=inputs, labels=labels)
    elif hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, np.ndarray | Mapping | str):
        split = Split(name=name, count=len(value), inputs=None, labels=None, dataset=value)
        if split.count and name != "train":
            split = split.arrays()
    else:
        raise InputError(f"{where} must be a pair (inputs, labels) or a map-style dataset, but got a {type(value).__name__}")
    if not split.count:
        raise InputError(f"{where} is empty")
    _check_values(where, split)
    return split


def _inputs(where: str, value: Any) -> dict[str, np.ndarray]:
    mapping = value if isinstance(value, Mapping) else {DEFAULT_INPUT: value}
    if not mapping:
        raise InputError(f"{where}: the mapping of inputs is empty")
    return {str(name): _array(where, f"input '{name}'" if name else "inputs", array) for name, array in mapping.items()}


def _labels(where: str, value: Any) -> np.ndarray | None:
    return None if value is None else _array(where, "labels", value)


def _array(where: str, what: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: {what} must be numbers, but have the type {array.dtype}")
    if array.ndim == 0:
        raise InputError(f"{where}: {what} must be an array whose first axis is the examples, but got a single number")
    return array


def _check_values(where: str, split: Split) -> None:
    """No NaN, no infinity. A train dataset is looked at in its first examples only: reading it all may take minutes."""
    inputs, labels = split.take(range(min(split.count, 64))) if split.inputs is None else (split.inputs, split.labels)
    for name, array in [*inputs.items(), *([("labels", labels)] if labels is not None else [])]:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array.reshape(len(array), -1)).all(axis=1)).sum())
            what = f"input '{name}'" if name not in ("", "labels") else name or "inputs"
            raise InputError(f"{where}: {what} hold NaN or infinity in {bad} of {len(array)} examples")


def _same_form(where: str, first: Split, other: Split) -> None:
    for left, right in zip(_forms(first), _forms(other), strict=False):
        if left != right:
            raise InputError(
                f"{where}: split '{other.name}' has {right[0] or 'inputs'} of {right[1]} {right[2]}, "
                f"but '{first.name}' has {left[0] or 'inputs'} of {left[1]} {left[2]}; they must be alike"
            )
    if len(_forms(first)) != len(_forms(other)):
        raise InputError(f"{where}: splits '{first.name}' and '{other.name}' have different numbers of inputs")


def _forms(split: Split) -> list[tuple[str, str, tuple[int, ...]]]:
    return sorted((spec.name, spec.dtype, spec.shape) for spec in specs(split))


def _items(dataset: Any, indices: list[int]) -> Iterable[Any]:
    """Return a batch of items, at once if the dataset has `__getitems__`, as torch's own loaders do."""
    together = getattr(dataset, "__getitems__", None)
    return (dataset[i] for i in indices) if together is None else together(indices)


def _materialise(split: Split, indices: "np.ndarray | range") -> Split:
    """Return items of a dataset as arrays."""
    rows: dict[str, list[np.ndarray]] = {}
    labels: list[Any] = []
    for index, item in zip(indices, _items(split.dataset, [int(i) for i in indices]), strict=True):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"split '{split.name}': item {index} of the dataset must be a pair (inputs, label)")
        inputs, label = item
        for name, value in inputs.items() if isinstance(inputs, Mapping) else [(DEFAULT_INPUT, inputs)]:
            rows.setdefault(name, []).append(np.asarray(value))
        labels.append(label)
    try:
        stacked = {name: np.stack(values) for name, values in rows.items()}
    except ValueError:
        raise InputError(f"split '{split.name}': the items of the dataset have inputs of different shapes") from None
    where = f"split '{split.name}'"
    some = any(label is not None for label in labels)
    return Split(
        name=split.name,
        count=len(labels),
        inputs=_inputs(where, stacked),
        labels=_labels(where, np.stack([np.asarray(label) for label in labels])) if some else None,
    )
