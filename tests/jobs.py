"""A job for a device: the tiny network with 70 images."""

from pathlib import Path

import numpy as np
import onnx

from orchestrator.plugin import Job
from orchestrator.plugin.registry import Registry
from tests.conftest import tiny_onnx

RUNTIME = Registry.discover().runtimes()["onnxruntime"]


def tiny_job(folder: Path) -> Job:
    """Its files are `model.onnx` and `image.npy` in that folder."""
    onnx.save(tiny_onnx(), folder / "model.onnx")
    np.save(folder / "image.npy", np.random.default_rng(0).normal(size=(70, 1, 12, 12)).astype(np.float32))
    return Job(
        model=folder / "model.onnx",
        load=RUNTIME.source(),
        imports=RUNTIME.imports,
        inputs={"image": folder / "image.npy"},
        threads=1,
        options={},
        timeout_s=60,
    )
