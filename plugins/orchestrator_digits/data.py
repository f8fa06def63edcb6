"""The digits data (Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits"), which ship with scikit-learn."""

import numpy as np

SIZES = {"validation": 400, "test": 400}
SCALE = 4
SEED = 0


def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """1,797 real images: 997 train, 400 validation, 400 test.

    Returns:
        For each split float32 images of shape (N, 1, 32, 32), 8x8 pixels scaled up bilinearly and standardised, and int64
        labels 0 to 9 of shape (N,).
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    loaded = load_digits()
    pixels = zoom(loaded.images, (1, SCALE, SCALE), order=1, grid_mode=True, mode="nearest")
    images = ((pixels - 4.9) / 6.0).astype(np.float32)[:, None]
    labels = loaded.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(labels))
    splits, start = {}, 0
    for name, count in SIZES.items():
        chosen = order[start : start + count]
        splits[name] = (images[chosen], labels[chosen])
        start += count
    return {"train": (images[order[start:]], labels[order[start:]]), **splits}
