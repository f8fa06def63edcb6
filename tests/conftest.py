"""A tiny user's project (model.py, data.py, model.onnx, arrays.npz), rogue plugins, and the command line as a person runs it."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several tests run at once: threads that wait for each other's core would make all of them slow. Read when torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A search uses simulated execution by itself where that is set up: here it is, or is not, whatever this machine has.
os.environ["ORCHESTRATE_QEMU"] = "/nonexistent"

# Tests build what they test, and nothing comes from what the user or another test has kept; those of the store name a folder.
os.environ["ORCHESTRATE_STORE"] = "none"

import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SHARED = Path(__file__).parents[1].parent / "shared"

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.body = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()) for _ in range(3)))
        self.head = nn.Linear(8, 3)

    def forward(self, image):
        x = torch.relu(self.stem(image))
        for block in self.body:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net()


def raises():
    raise RuntimeError("no weights today")


def leaves():
    raise SystemExit("the weights are not installed")


def no_module():
    return 42


def wrong_channels():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def nan_weights():
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    return model


def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def four_classes():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))


def crashes():
    import ctypes

    ctypes.string_at(0)
"""

DATA = """
import numpy as np


def splits(count=48, classes=3):
    generator = np.random.default_rng(0)
    made = {}
    for name in ("train", "validation", "test"):
        labels = generator.integers(0, classes, count)
        images = generator.normal(size=(count, 1, 12, 12)).astype(np.float32) * 0.1
        images[np.arange(count), 0, 2 + 3 * labels, 2:10] += 2.0
        made[name] = (images, labels)
    return made


def no_validation():
    made = splits()
    del made["validation"]
    return made


def wrong_split_name():
    return {**splits(), "valid": splits()["validation"]}


def no_mapping():
    return [splits()["validation"]]


def empty():
    images, labels = splits()["validation"]
    return {"validation": (images[:0], labels[:0])}


def nan_inputs():
    made = splits()
    made["validation"][0][3, 0, 0, 0] = np.nan
    return made


def labels_out_of_range():
    made = splits()
    made["validation"][1][0] = 7
    return made


def fewer_labels():
    images, labels = splits()["validation"]
    return {"validation": (images, labels[:-1])}


def words():
    images, labels = splits()["validation"]
    return {"validation": (np.array(["a"] * len(labels)), labels)}


def objects():
    images, labels = splits()["validation"]
    return {"validation": (np.array([{} for _ in labels], dtype=object), labels)}


def unlike():
    made = splits()
    made["train"] = (made["train"][0][:, :, :6], made["train"][1])
    return made


def doubles():
    return {name: (images.astype(np.float64), labels) for name, (images, labels) in splits().items()}


def unlabelled():
    return {name: (images, None) for name, (images, _) in splits().items()}


def real_labels():
    return {name: (images, labels.astype(np.float32)) for name, (images, labels) in splits().items()}


def raises():
    raise FileNotFoundError("images.bin")
"""

EXTRAS = """
import numpy as np
from torch.nn import functional


def top1(outputs, labels):
    return (outputs.argmax(-1) == labels).astype(float)


def macro_recall(outputs, labels):
    top = outputs.argmax(-1)
    return float(np.mean([(top[labels == k] == k).mean() if (labels == k).any() else 1.0 for k in range(3)]))


def one_argument(outputs):
    return outputs.mean(-1)


def fails(outputs, labels):
    raise ZeroDivisionError("nothing to divide")


def smooth(outputs, labels):
    return functional.cross_entropy(outputs, labels, label_smoothing=0.1)
"""

ROGUE = """
import ctypes
import time

import onnx

from orchestrator.plugin import MethodError, OnnxMethod, hookimpl


class Rogue(OnnxMethod):
    version = 1
    family = "rogue"
    summary = "misbehaves"

    def transform(self, model, parameters, context):
        getattr(self, self.name.partition("-")[2].replace("-", "_"))()
        return model

    def exception(self):
        raise RuntimeError("first line\\nsecond line")

    def refusal(self):
        raise MethodError("not on this network")

    def segfault(self):
        ctypes.string_at(0)

    def exit(self):
        raise SystemExit(3)

    def hang(self):
        time.sleep(3600)

    def memory(self):
        held = []
        while True:
            held.append(bytearray(50_000_000))


class Ruins(Rogue):
    def transform(self, model, parameters, context):
        loaded = onnx.load(model)
        kind = self.name.partition("-")[2]
        if kind == "nan":
            for tensor in loaded.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT:
                    array = onnx.numpy_helper.to_array(tensor) * float("nan")
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        else:
            loaded.graph.node[0].op_type = "NoSuchOperator"
        path = context.workspace / "ruined.onnx"
        onnx.save(loaded, path)
        return path


def make(base, kind):
    return type("Made", (base,), {"name": f"rogue-{kind}"})()


@hookimpl
def orchestrator_methods():
    kinds = ("exception", "refusal", "segfault", "exit", "hang", "memory")
    return [make(Rogue, kind) for kind in kinds] + [make(Ruins, kind) for kind in ("nan", "unloadable")]


@hookimpl
def orchestrator_check_recipe(recipe, target):
    forbidden = any(step.method == "rogue-refusal" for step in recipe.steps)
    return ["the law forbids it"] if forbidden else []


@hookimpl
def orchestrator_trial_finished(trial):
    raise ValueError("an observer that fails")
"""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A user's folder."""

    folder: Path

    def ref(self, name: str) -> str:
        """`model:net` as a reference into this folder."""
        file, _, function = name.partition(":")
        return str(self.folder / f"{file}.py") + f":{function}"

    @property
    def onnx(self) -> list[str]:
        """Options of a search on the ONNX file, which needs no training."""
        return ["--model", str(self.folder / "model.onnx"), "--data", str(self.folder / "arrays.npz")]


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "extras.py").write_text(EXTRAS)
    namespace: dict[str, object] = {}
    exec(DATA, namespace)
    made = namespace["splits"](count=200)  # type: ignore[operator]
    arrays = {f"{n}_{k}": a for n, (x, y) in made.items() for k, a in (("x", x), ("y", y))}
    np.savez(folder / "arrays.npz", **arrays)
    onnx.save(tiny_onnx(), folder / "model.onnx")
    return Project(folder=folder)


@pytest.fixture
def project(_project: Project, tmp_path: Path) -> Project:
    """A copy of the user's folder, for this test alone."""
    return Project(folder=Path(shutil.copytree(_project.folder, tmp_path / "project")))


def tiny_onnx(*, batch: int | str = "batch", kernel: int = 3) -> onnx.ModelProto:
    """A small CNN for (batch, 1, 12, 12) images in three classes, whose rows it can tell apart."""
    generator = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((generator.normal(size=shape) * 0.3).astype(np.float32), name)

    head = np.zeros((3, 12), np.float32)
    for label in range(3):
        head[label, 2 + 3 * label] = 1.0
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[kernel // 2] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["c2"], ["noise"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["image"], ["rows"], axes=[1, 3], keepdims=0),
        helper.make_node("Gemm", ["rows", "head"], ["scores"], transB=1),
        helper.make_node("Unsqueeze", ["noise", "one"], ["column"]),
        helper.make_node("Mul", ["column", "tenth"], ["little"]),
        helper.make_node("Add", ["scores", "little"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 12, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [
            weights("w1", 16, 1, kernel, kernel),
            weights("b1", 16),
            weights("w2", 16, 16, 3, 3),
            numpy_helper.from_array(head, "head"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([0.001], np.float32), "tenth"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def install(
    folder: Path, name: str, source: str, *, entry: str | None = None, version: str = "1.0", requires: str | None = None
) -> None:
    """Lay out a third party's distribution, as pip would, in a folder that will be on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text(f"[orchestrator]\n{name} = {entry or module}\n")


@dataclass(frozen=True, kw_only=True)
class Cli:
    """`orchestrate` in a folder, with further packages on the path."""

    folder: Path
    packages: Path
    python: str = sys.executable

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it and go on."""
        environment = {**os.environ, "PYTHONPATH": str(self.packages), "COLUMNS": "200"}
        return subprocess.Popen(
            [self.python, "-m", "orchestrator", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, timeout: float = 900) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line in an empty folder."""
    folder, packages = tmp_path / "here", tmp_path / "packages"
    folder.mkdir()
    packages.mkdir()
    return Cli(folder=folder, packages=packages)


@pytest.fixture
def rogue(cli: Cli) -> Cli:
    """The command line with the rogue plugin installed."""
    install(cli.packages, "rogue", ROGUE)
    return cli


@pytest.fixture
def installer(cli: Cli) -> Callable[..., None]:
    """Installs a third party's plugin for `cli`."""

    def run(name: str, source: str, **more: str) -> None:
        install(cli.packages, name, source, **more)

    return run


needs_cases = pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="the real cases (../shared/cases) are not here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--golden` keeps what the methods make now as what they should make."""
    parser.addoption("--golden", action="store_true", help="write the golden results anew (with -n0: one file, one writer)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is dear to make is made by one of the processes that share the tests."""
    for item in items:
        for fixture in ("torch_run", "browser", "toolchain"):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(fixture))


def pytest_configure(config: pytest.Config) -> None:
    """Golden results are collected in one process."""
    if config.getoption("--golden") and config.getoption("numprocesses", default=None):
        raise pytest.UsageError("--golden writes one file: add -n0")
