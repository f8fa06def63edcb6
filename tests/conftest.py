"""Fixtures for all tests: a small user project, third-party plugins, and the command line."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several tests run at once; more threads than cores slow all of them down. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A search uses simulated execution if it is set up; tests must not depend on the user's set-up.
os.environ["ORCHESTRATE_QEMU"] = "/nonexistent"

# No test reuses artifacts of the user or of another test; tests of the store set a folder.
os.environ["ORCHESTRATE_STORE"] = "none"

import compileall
import contextlib
import json
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _pytest.capture import FDCapture, MultiCapture
from onnx import TensorProto, helper, numpy_helper

from orchestrator.cli import main
from tests.launcher import replacement
from tests.patching import CheckedMonkeyPatch

SHARED = Path(__file__).parents[1].parent / "shared"
PROJECTS = Path(__file__).parent / "projects"
"""Users' projects and third parties' plugins, a folder each."""
LAUNCHER = Path(__file__).parent / "launcher.py"
QUICK_TIMING = {
    "orchestrator.measuring.scoring:OBJECTIVE": {"max_seconds": 0.3},
    "orchestrator.measuring.scoring:BESIDE": {"max_seconds": 0.3},
    "orchestrator.measuring.scoring:TOGETHER_S": 0.3,
}
"""Replacements for searches whose measured times no assertion reads."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A user's folder."""

    folder: Path

    def ref(self, name: str) -> str:
        """Return a reference into this folder, such as `model:net`."""
        file, _, function = name.partition(":")
        return str(self.folder / f"{file}.py") + f":{function}"

    @property
    def onnx(self) -> list[str]:
        """Return the options of a search on the ONNX file, which needs no training."""
        return ["--model", str(self.folder / "model.onnx"), "--data", str(self.folder / "arrays.npz")]


@pytest.fixture
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """Provide pytest's fixture, which here also fails the test if a fake of a product function was never called."""
    patch = CheckedMonkeyPatch()
    yield patch
    patch.undo()
    assert not patch.uncalled(), "fakes that were never called; does the product import these functions from another module?"


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the measurements of searches in this process, as `Cli` does."""
    for name, value in QUICK_TIMING.items():
        monkeypatch.setattr(*replacement(name, value))


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = Path(shutil.copytree(PROJECTS / "classifier", tmp_path_factory.mktemp("project"), dirs_exist_ok=True))
    splits = runpy.run_path(str(folder / "data.py"))["splits"](count=200)
    arrays = {f"{n}_{k}": a for n, (x, y) in splits.items() for k, a in (("x", x), ("y", y))}
    np.savez(folder / "arrays.npz", **arrays)
    onnx.save(tiny_onnx(), folder / "model.onnx")
    return Project(folder=folder)


@pytest.fixture
def project(_project: Project, tmp_path: Path) -> Project:
    """Provide a copy of the user's folder."""
    return Project(folder=Path(shutil.copytree(_project.folder, tmp_path / "project")))


def tiny_onnx(*, batch: int | str = "batch", kernel: int = 3) -> onnx.ModelProto:
    """Return a small CNN that classifies (batch, 1, 12, 12) images into three classes."""
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
    folder: Path,
    name: str,
    source: str | None = None,
    *,
    entry: str | None = None,
    version: str = "1.0",
    requires: str | None = None,
) -> None:
    """Install a third party's distribution, as pip would, into a folder that will be on PYTHONPATH.

    Args:
        source: Of its module; None: the files of its folder in `tests/projects` are copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    if source is None:
        shutil.copytree(PROJECTS / module, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text(f"[orchestrator]\n{name} = {entry or module}\n")


def orchestrate(*arguments: str, python: str = sys.executable, patches: Mapping[str, Any] = QUICK_TIMING) -> list[str]:
    """Return the command line of `orchestrate`; a search replaces the values in `patches`."""
    if arguments and arguments[0] in ("search", "resume", "worker") and patches:
        return [python, str(LAUNCHER), json.dumps(dict(patches)), *arguments]
    return [python, "-m", "orchestrator", *arguments]


LIGHT = {("estimate",), ("report",), ("profiles", "list"), ("profiles", "show"), ("profiles", "check")}
"""Commands that start no process and only read or write files."""


def run_here(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `orchestrate` in this process."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        capture = MultiCapture(in_=None, out=FDCapture(1), err=FDCapture(2))
        capture.start_capturing()
        try:
            main(list(arguments))
            code: Any = 0
        except SystemExit as end:
            code = end.code
        finally:
            out, err = capture.readouterr()
            capture.stop_capturing()
    return subprocess.CompletedProcess(arguments, code, out, err)


@dataclass(frozen=True, kw_only=True)
class Cli:
    """The program `orchestrate` in a folder, with additional packages on the path.

    Attributes:
        patches: Values of the product that a search replaces (tests/launcher.py); empty if a test reads measured times.
    """

    folder: Path
    packages: Path
    python: str = sys.executable
    patches: Mapping[str, Any] = field(default_factory=QUICK_TIMING.copy)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command and return its process."""
        environment = {**os.environ, "PYTHONPATH": str(self.packages), "COLUMNS": "200"}
        return subprocess.Popen(
            orchestrate(*arguments, python=self.python, patches=self.patches),
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, timeout: float = 900) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; one of `LIGHT` runs in this process."""
        light = arguments[:1] in LIGHT or arguments[:2] in LIGHT
        if light and self.python == sys.executable and not any(self.packages.iterdir()):
            return run_here(*arguments, folder=self.folder)
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
    """Provide the command line in an empty folder."""
    folder, packages = tmp_path / "here", tmp_path / "packages"
    folder.mkdir()
    packages.mkdir()
    return Cli(folder=folder, packages=packages)


@pytest.fixture
def rogue(cli: Cli) -> Cli:
    """Provide the command line with a plugin whose methods crash, hang, exit or exceed the memory."""
    install(cli.packages, "rogue")
    return cli


@pytest.fixture
def installer(cli: Cli) -> Callable[..., None]:
    """Install a third party's plugin for `cli`."""

    def run(name: str, source: str | None = None, **more: str) -> None:
        install(cli.packages, name, source, **more)

    return run


needs_cases = pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="the real cases (../shared/cases) are not available")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--golden`, which writes the present results as the golden ones."""
    parser.addoption("--golden", action="store_true", help="rewrite the golden results (with -n0)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of an expensive fixture in one xdist worker, so that it is set up once."""
    for item in items:
        for fixture in ("torch_run", "chromium", "toolchain"):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(fixture))


def pytest_configure(config: pytest.Config) -> None:
    """Compile the product once for the processes of the tests, and reject `--golden` in parallel runs."""
    if sys.dont_write_bytecode and "PYTEST_XDIST_WORKER" not in os.environ:
        for folder in ("orchestrator", "plugins"):
            compileall.compile_dir(Path(__file__).parents[1] / folder, quiet=2)
    if config.getoption("--golden") and config.getoption("numprocesses", default=None):
        raise pytest.UsageError("--golden writes one file: add -n0")
