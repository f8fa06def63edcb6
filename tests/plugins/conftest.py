"""The kit's networks as fixtures."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from orchestrator.plugin import Target
from orchestrator.plugin.testing.cases import NETWORKS, Case, make_case, target
from orchestrator.plugin.testing.methods import exported_network


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size gain nothing from threads, and spinning ones disturb whatever else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="make_case")
def make_case_fixture() -> Callable[[str], Case]:
    return make_case


@pytest.fixture(name="target")
def target_fixture() -> Callable[..., Target]:
    return target


@pytest.fixture(params=list(NETWORKS))
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="session")
def export() -> Callable[[Case, nn.Module, Path], Path]:
    """`export(case, model, path)` writes ONNX with a dynamic batch axis."""

    def write(case: Case, model: nn.Module, path: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.onnx warns of its own deprecated parts
            torch.onnx.export(
                model,
                tuple(case.batch().values()),
                path,
                dynamo=True,
                verbose=False,
                input_names=list(case.inputs),
                dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1)} for _ in case.inputs),
                external_data=False,
            )
        return path

    return write


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the ONNX file of one of the kit's networks."""
    folder = tmp_path_factory.mktemp("exported")

    def find(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            path.write_bytes(exported_network(name))
        return path

    return find


@pytest.fixture(scope="session")
def run() -> Callable[[Path, Mapping[str, np.ndarray]], list[np.ndarray]]:
    """`run(path, inputs)`: the outputs of an ONNX file."""

    def infer(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return session.run(None, dict(inputs))

    return infer
