"""The digits data (Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits"), which scikit-learn ships."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SIZES = {"validation": 400, "test": 400}
SCALE = 4
SEED = 0


def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return 1,797 real images: 997 train, 400 validation, 400 test.

    Returns:
        For each split float32 images of shape (N, 1, 32, 32), 8x8 pixels scaled up bilinearly and standardised, and int64
        labels 0 to 9 of shape (N,).
    """
    from scipy.ndimage import zoom

    table = _table()
    pixels = zoom(table[:, :-1].reshape(-1, 8, 8), (1, SCALE, SCALE), order=1, grid_mode=True, mode="nearest")
    images = ((pixels - 4.9) / 6.0).astype(np.float32)[:, None]
    labels = table[:, -1].astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(labels))
    splits, start = {}, 0
    for name, count in SIZES.items():
        chosen = order[start : start + count]
        splits[name] = (images[chosen], labels[chosen])
        start += count
    return {"train": (images[order[start:]], labels[order[start:]]), **splits}


def _table() -> np.ndarray:
    """Return a table of shape (1797, 65): 64 pixels from 0 to 16, row by row, and the digit.

    It is read from scikit-learn's file, because importing scikit-learn takes longer than the rest of a repeated search.
    """
    found = find_spec("sklearn")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if path is not None and path.is_file():
        with gzip.open(path, "rt") as file:
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return np.column_stack([loaded.data, loaded.target])
