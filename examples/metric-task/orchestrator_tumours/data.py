"""Wisconsin breast cancer measurements (Street et al. 1993) in three splits."""

import numpy as np
from sklearn.datasets import load_breast_cancer


def splits():
    """Standardised by the train split; shuffled, the same way each time."""
    found = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(found.target))
    values, labels = found.data[order].astype(np.float32), found.target[order].astype(np.int64)
    mean, scale = values[:341].mean(0), values[:341].std(0)
    values = (values - mean) / scale
    return {
        "train": (values[:341], labels[:341]),
        "validation": (values[341:455], labels[341:455]),
        "test": (values[455:], labels[455:]),
    }
