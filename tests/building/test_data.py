"""Data splits in every form that interface.md allows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.building.data import Split, load_data, renamed, specs
from orchestrator.errors import InputError


def load(tmp_path: Path, body: str) -> dict[str, Split]:
    path = tmp_path / "data.py"
    path.write_text(f"import numpy as np\nimport torch\nfrom torch.utils.data import Dataset\n{body}\n")
    return load_data(f"{path}:make")


DATASET = """
class Items(Dataset):
    def __len__(self): return 5
    def __getitem__(self, i): return {item}

def make():
    return {{"train": Items(), "validation": Items()}}
"""


def test_pairs_of_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    found = load(tmp_path, "def make(): return {'validation': (np.ones((4, 2), np.float32), np.arange(4))}")
    inputs, labels = found["validation"].take(range(1, 3))
    assert inputs[""].shape == (2, 2)
    assert labels is not None
    assert labels.tolist() == [1, 2]


def test_dataset_items_become_arrays_and_train_stays_a_dataset(tmp_path: Path) -> None:
    found = load(tmp_path, DATASET.format(item="torch.full((3,), float(i)), i % 2"))
    assert found["train"].inputs is None
    assert found["validation"].inputs is not None
    inputs, labels = found["train"].take(np.array([4, 0]))
    assert inputs[""].tolist() == [[4.0] * 3, [0.0] * 3]
    assert labels is not None
    assert labels.tolist() == [0, 0]


def test_dataset_of_several_inputs_without_labels_is_served(tmp_path: Path) -> None:
    found = load(tmp_path, DATASET.format(item="{'ids': np.array([i, i]), 'mask': np.array([1, 0])}, None"))
    inputs, labels = found["train"].take(range(2))
    assert {name: array.dtype.kind for name, array in inputs.items()} == {"ids": "i", "mask": "i"}
    assert labels is None
    assert [spec.name for spec in specs(found["validation"])] == ["ids", "mask"]


def test_npz_may_hold_several_inputs_and_no_labels(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {f"validation_x.{name}": np.zeros((3, 4), np.int64) for name in ("ids", "mask")}
    np.savez(tmp_path / "arrays.npz", **arrays)
    found = load_data(str(tmp_path / "arrays.npz"))
    assert set(found["validation"].inputs or {}) == {"ids", "mask"}
    assert found["validation"].labels is None


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("def make(): return {'validation': (np.zeros((0, 2)), None)}", "is empty"),
        ("def make(): return {'validation': np.zeros((4, 2))}", "must be a pair (inputs, labels) or a map-style dataset"),
        ("def make(): return {'validation': ({}, None)}", "the mapping of inputs is empty"),
        ("def make(): return {'validation': ({'a': np.zeros(3), 'b': np.zeros(4)}, None)}", "has 4 examples, another 3"),
        ("def make(): return {'validation': (np.float32(3), None)}", "must be an array whose first axis is the examples"),
        ("def make(): return {'validation': (np.array([np.inf]), None)}", "inputs hold NaN or infinity in 1 of 1 examples"),
        ("def make(): return {'validation': (np.zeros(2), np.array([np.nan, 1]))}", "labels hold NaN or infinity"),
        (DATASET.format(item="torch.zeros(i + 1), 0"), "inputs of different shapes"),
        (DATASET.format(item="torch.zeros(3)"), "must be a pair (inputs, label)"),
    ],
)
def test_what_breaks_the_rules_is_refused(tmp_path: Path, body: str, line: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, body)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_batches_go_through_all_examples_once_up_to_the_limit() -> None:
    split = Split(name="x", count=10, inputs={"a": np.arange(10)}, labels=None)
    assert [len(inputs["a"]) for inputs, _ in split.batches(4)] == [4, 4, 2]
    assert [len(inputs["a"]) for inputs, _ in split.batches(4, limit=5)] == [4, 1]
    assert np.concatenate([inputs["a"] for inputs, _ in split.batches(3)]).tolist() == list(range(10))


def test_dataset_that_gives_batches_is_asked_for_batches(tmp_path: Path) -> None:
    body = """
class Batched(Dataset):
    def __len__(self): return 5
    def __getitem__(self, i): return self.__getitems__([i])[0]
    def __getitems__(self, indices): return [(np.full(2, i, np.float32), len(indices)) for i in indices]

def make():
    return {"train": Batched(), "validation": Batched()}
"""
    train = renamed(load(tmp_path, body)["train"], "x")
    inputs, labels = train.take(np.array([4, 0, 2]))
    assert inputs["x"][:, 0].tolist() == [4, 0, 2]
    assert labels is not None and labels.tolist() == [3, 3, 3], "all three at once"
