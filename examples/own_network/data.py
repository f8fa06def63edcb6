"""Data file of a user: a function without arguments that returns the splits, each a pair (inputs, labels)."""

import numpy as np


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return windows of simulated motion sensors: six channels, 128 samples; at rest, walking, running."""
    generator = np.random.default_rng(0)

    def windows(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, 3, count)
        frequency = np.array([0.0, 1.8, 2.8])[labels] + generator.normal(0, 0.35, count)
        strength = np.array([0.0, 0.8, 1.2])[labels] * generator.uniform(0.5, 1.5, count)
        phase = generator.uniform(0, 2 * np.pi, (count, 6, 1))
        seconds = np.arange(128) / 50
        swing = np.sin(2 * np.pi * frequency[:, None, None] * seconds + phase) * strength[:, None, None]
        return (swing + generator.normal(0, 0.6, (count, 6, 128))).astype(np.float32), labels

    return {"train": windows(3000), "validation": windows(1000), "test": windows(1000)}
