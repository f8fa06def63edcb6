"""Small networks with data, and the context that a method is handed, without the rest of the house."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.building.export import export_onnx
from orchestrator.plugin import BuildContext, HardwareProfile, Target, TaskDescription
from orchestrator.values.profile import Cluster, Memory, RuntimeSupport

CLASSES = 5
EXAMPLES = 64


class PlainCnn(nn.Module):
    """Convolutions in a row, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        )
        self.hidden = nn.Linear(96, 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(functional.relu(self.hidden(self.features(image).flatten(1))))


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution with a residual connection (He et al. 2015; Sandler et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.act(self.norm(self.depthwise(x))))
        y += x
        return self.act(y)


class ResidualCnn(nn.Module):
    """Two stages of separable blocks; the shortcut between them pads channels with zeros (He et al. 2015, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Sequential(SeparableBlock(16), SeparableBlock(16))
        self.widen = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.second = nn.Sequential(SeparableBlock(32), SeparableBlock(32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(functional.relu(self.stem(image)))
        x = self.widen(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        return self.head(self.second(x).mean((2, 3)))


class Transformer(nn.Module):
    """A sentence encoder with two integer inputs and an embedding as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(32, 12)

    def forward(self, tokens: Tensor, kinds: Tensor) -> Tensor:
        x = self.encoder(self.embedding(tokens) + 0.1 * self.embedding(kinds))
        return self.head(x.mean(1))


class LstmClassifier(nn.Module):
    """The last state of an LSTM, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 24, batch_first=True)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.lstm(sequence)[0][:, -1])


def target(
    *,
    multiple: int = 1,
    formats: tuple[Any, ...] = ("float32", "int8"),
    schemes: tuple[Any, ...] = ("u8s8", "s8s8", "u8u8"),
    isa: tuple[str, ...] = ("avx2", "avx512_vnni"),
    runtime: str = "onnxruntime",
) -> Target:
    """A machine in memory."""
    support = RuntimeSupport(
        name=runtime,
        threads=1,
        formats=formats,
        source="test",
        int8_schemes=schemes,
        channel_multiple={"float32": multiple},
    )
    profile = HardwareProfile(
        schema=1,
        name="machine",
        title="A machine",
        kind="desktop",
        sources={"test": "a test"},
        clusters=(Cluster(name="all", cores=2, clock_hz=1e9, isa=isa, source="test"),),
        memory=Memory(size_bytes=1 << 33, bandwidth_bytes_per_second=1e10, source="test"),
        runtimes=(support,),
    )
    return Target(profile=profile, device="host", is_device=True, runtime=runtime, threads=1)


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(next(iter(inputs.values()))) if len(inputs) == 1 else model(**inputs)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its inputs (first axis the examples) and its labels."""

    model: nn.Module
    inputs: dict[str, np.ndarray]
    classes: int | None

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(next(iter(self.inputs.values())))) % (self.classes or 2)

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.model)

    def batch(self, count: int = 2) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array[:count]) for name, array in self.inputs.items()}

    def outputs(self, model: nn.Module, count: int = 2) -> Any:
        with torch.no_grad():
            return forward(model, self.batch(count))

    def train(
        self, model: nn.Module, *, epochs: float, loss: Any, learning_rate: float, after_step: Any = None, **_: Any
    ) -> None:
        """One batch of all examples, `epochs` times."""
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
        batch = self.batch(EXAMPLES)
        model.train()
        for _ in range(max(1, round(epochs))):
            optimizer.zero_grad()
            loss(forward(model, batch), batch, self.labels).backward()
            optimizer.step()
            if after_step is not None:
                with torch.no_grad():
                    after_step()
        model.eval()

    def samples(self, count: int, batch: int) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        for start in range(0, min(count, EXAMPLES), batch):
            stop = min(start + batch, count, EXAMPLES)
            yield (
                {name: torch.from_numpy(array[start:stop]) for name, array in self.inputs.items()},
                self.labels[start:stop] if self.classes else None,
            )

    def export(self, workspace: Path, model: nn.Module) -> Path:
        export_onnx(model.eval(), self.batch(), workspace / "exported.onnx")
        return workspace / "exported.onnx"

    def calibration(self, count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
        count = min(count, len(next(iter(self.inputs.values()))))
        for start in range(0, count, batch):
            yield {name: array[start : min(start + batch, count)] for name, array in self.inputs.items()}

    def context(self, workspace: Path, **changes: Any) -> BuildContext:
        described = TaskDescription(
            name="case",
            model="case.py:model",
            data="case.py:data",
            kind="torch",
            inputs=(),
            outputs=(),
            classes=self.classes,
            metric="accuracy",
            direction="maximize",
            examples={"train": EXAMPLES, "validation": EXAMPLES},
            labelled=("train", "validation") if self.classes else (),
            digest="0",
            weights_digest="0",
            data_digest="0",
        )
        fields: dict[str, Any] = {
            "target": target(),
            "task": described,
            "original": self.model,
            "example": self.batch(),
            "forward": forward,
            "calibration": self.calibration,
            "train": self.train,
            "task_loss": functional.cross_entropy if self.classes else None,
            "samples": self.samples,
            "export": partial(self.export, workspace),
            "remember": lambda key, compute: json.loads(json.dumps(compute())),
            "student": None,
            "workspace": workspace,
            "seed": 0,
            "epochs": (1.0, 5.0),
        }
        return BuildContext(**{**fields, **changes})


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[np.random.Generator], dict[str, np.ndarray]], int | None]] = {
    "plain-cnn": (PlainCnn, lambda r: {"image": r.standard_normal((EXAMPLES, 3, 8, 8), dtype=np.float32)}, CLASSES),
    "residual-cnn": (ResidualCnn, lambda r: {"image": r.standard_normal((EXAMPLES, 3, 8, 8), dtype=np.float32)}, CLASSES),
    "transformer": (Transformer, lambda r: {n: r.integers(0, 50, (EXAMPLES, 7)) for n in ("tokens", "kinds")}, None),
    "lstm": (LstmClassifier, lambda r: {"sequence": r.standard_normal((EXAMPLES, 6, 12), dtype=np.float32)}, CLASSES),
}


def make_case(name: str) -> Case:
    build, inputs, classes = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, so that folding and pruning have something to get wrong
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return Case(model=model, inputs=inputs(np.random.default_rng(0)), classes=classes)


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
def exported(export: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The ONNX file of a network as it is, exported once."""
    folder = tmp_path_factory.mktemp("exported")

    def find(name: str) -> Path:
        path = folder / f"{name}.onnx"
        return path if path.exists() else export(make_case(name), make_case(name).model, path)

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
