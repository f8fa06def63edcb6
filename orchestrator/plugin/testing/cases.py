"""Small networks with data, and the context that a method is handed, without a search around it."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.building.export import export_onnx
from orchestrator.hardware.probe import probe_host
from orchestrator.plugin import BuildContext, HardwareProfile, Target, TaskDescription
from orchestrator.plugin.masks import zeros_kept
from orchestrator.values.direction import Direction
from orchestrator.values.profile import Cluster, Memory, RuntimeSupport
from orchestrator.values.task import TaskSpec

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
        """Logits, shape (N, 5), of images (N, 3, 8, 8)."""
        scores: Tensor = self.head(functional.relu(self.hidden(self.features(image).flatten(1))))
        return scores


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution with a residual connection (He et al. 2015; Sandler et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Of the input's shape."""
        y: Tensor = self.pointwise(self.act(self.norm(self.depthwise(x))))
        y += x
        out: Tensor = self.act(y)
        return out


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
        """Logits, shape (N, 5), of images (N, 3, 8, 8)."""
        x = self.first(functional.relu(self.stem(image)))
        x = self.widen(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        scores: Tensor = self.head(self.second(x).mean((2, 3)))
        return scores


class Transformer(nn.Module):
    """A sentence encoder with two integer inputs and an embedding as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(32, 12)

    def forward(self, tokens: Tensor, kinds: Tensor) -> Tensor:
        """Embeddings, shape (N, 12), of token numbers (N, 7)."""
        x = self.encoder(self.embedding(tokens) + 0.1 * self.embedding(kinds))
        embedded: Tensor = self.head(x.mean(1))
        return embedded


class LstmClassifier(nn.Module):
    """The last state of an LSTM, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 24, batch_first=True)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        """Logits, shape (N, 5), of sequences (N, 6, 12)."""
        scores: Tensor = self.head(self.lstm(sequence)[0][:, -1])
        return scores


def target(
    *,
    multiple: int = 1,
    formats: tuple[Any, ...] = ("float32", "int8"),
    schemes: tuple[Any, ...] = ("u8s8", "s8s8", "u8u8"),
    isa: tuple[str, ...] | None = None,
    runtime: str = "onnxruntime",
) -> Target:
    """Return a target with a profile in memory.

    Args:
        multiple: Channels in float32 are a multiple of this.
        formats: Number formats of the runtime.
        schemes: Its INT8 schemes.
        isa: Instruction-set features; None: this machine's, whose kernels compute the kit's networks.
        runtime: Its name.
    """
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
        clusters=(Cluster(name="all", cores=2, clock_hz=1e9, isa=_host_features() if isa is None else isa, source="test"),),
        memory=Memory(size_bytes=1 << 33, bandwidth_bytes_per_second=1e10, source="test"),
        runtimes=(support,),
    )
    return Target(profile=profile, device="host", is_device=True, runtime=runtime, threads=1)


@cache
def _host_features() -> tuple[str, ...]:
    return probe_host().clusters[0].isa


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Call a network: a single input by position, several by name."""
    return model(next(iter(inputs.values()))) if len(inputs) == 1 else model(**inputs)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its inputs (first axis the examples, 64 of them) and the number of its classes (None: it is no classifier)."""

    model: nn.Module
    inputs: dict[str, "np.ndarray[Any, Any]"]
    classes: int | None

    @property
    def labels(self) -> Tensor:
        """Class indices, shape (64,)."""
        return torch.arange(len(next(iter(self.inputs.values())))) % (self.classes or 2)

    def copy(self) -> nn.Module:
        """Return a copy of the network, which may be changed."""
        return copy.deepcopy(self.model)

    def batch(self, count: int = 2) -> dict[str, Tensor]:
        """Return the first examples."""
        return {name: torch.from_numpy(array[:count]) for name, array in self.inputs.items()}

    def outputs(self, model: nn.Module, count: int = 2) -> Any:
        """Return a network's outputs for the first examples."""
        with torch.no_grad():
            return forward(model, self.batch(count))

    def train(
        self, model: nn.Module, *, epochs: float, loss: Any, learning_rate: float, after_step: Any = None, **_: Any
    ) -> None:
        """Train on one batch of all examples, `epochs` times."""
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
        batch = self.batch(EXAMPLES)
        model.train()
        with zeros_kept(model):
            for _epoch in range(max(1, round(epochs))):
                optimizer.zero_grad()
                loss(forward(model, batch), batch, self.labels).backward()
                optimizer.step()
                if after_step is not None:
                    with torch.no_grad():
                        after_step()
        model.eval()

    def samples(self, count: int, batch: int) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """As `BuildContext.samples`."""
        for start in range(0, min(count, EXAMPLES), batch):
            stop = min(start + batch, count, EXAMPLES)
            yield (
                {name: torch.from_numpy(array[start:stop]) for name, array in self.inputs.items()},
                self.labels[start:stop] if self.classes else None,
            )

    def export(self, workspace: Path, model: nn.Module) -> Path:
        """Export the network as `exported.onnx` in a folder, as a search would."""
        workspace.mkdir(parents=True, exist_ok=True)
        export_onnx(model.eval(), self.batch(), workspace / "exported.onnx")
        return workspace / "exported.onnx"

    def calibration(self, count: int, batch: int) -> Iterator[dict[str, "np.ndarray[Any, Any]"]]:
        """As `BuildContext.calibration`."""
        count = min(count, len(next(iter(self.inputs.values()))))
        for start in range(0, count, batch):
            yield {name: array[start : min(start + batch, count)] for name, array in self.inputs.items()}

    def context(self, workspace: Path, **changes: Any) -> BuildContext:
        """Return the context of a method; `changes` replace its fields."""
        workspace.mkdir(parents=True, exist_ok=True)
        described = TaskDescription(
            spec=TaskSpec(name="case", model="case.py:model", data="case.py:data"),
            kind="torch",
            inputs=(),
            outputs=(),
            classes=self.classes,
            metric="accuracy",
            direction=Direction.MAXIMIZE,
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


def _images(generator: np.random.Generator) -> dict[str, Any]:
    return {"image": generator.standard_normal((EXAMPLES, 3, 8, 8), dtype=np.float32)}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[np.random.Generator], dict[str, Any]], int | None]] = {
    "plain-cnn": (PlainCnn, _images, CLASSES),
    "residual-cnn": (ResidualCnn, _images, CLASSES),
    "transformer": (Transformer, lambda r: {n: r.integers(0, 50, (EXAMPLES, 7)) for n in ("tokens", "kinds")}, None),
    "lstm": (LstmClassifier, lambda r: {"sequence": r.standard_normal((EXAMPLES, 6, 12), dtype=np.float32)}, CLASSES),
}


def make_case(name: str) -> Case:
    """Return one of the kit's networks by name, with the same weights and inputs at each call."""
    build, inputs, classes = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, so that folding and pruning have something to get wrong
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return Case(model=model, inputs=inputs(np.random.default_rng(0)), classes=classes)
