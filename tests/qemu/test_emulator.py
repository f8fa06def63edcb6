"""Warm guests: counts that depend on nothing but the model, and failures that are told apart."""

import dataclasses
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.errors import EnvironmentFailure, JobFailed
from orchestrator_qemu.cpus import CPUS
from orchestrator_qemu.emulator import Emulator
from orchestrator_qemu.toolchain import Toolchain
from orchestrator_runtimes.onnxruntime import OnnxRuntime

# What a model does is its file's name: no runtime is needed to see how the emulator takes it.
LOAD = Path(__file__).with_name("behaviours.py").read_text()


@pytest.fixture(scope="module")
def emulator(toolchain: Toolchain) -> Iterator[Emulator]:
    with Emulator(toolchain, CPUS["cortex-a72"], load=LOAD, imports=()) as running:
        yield running


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    return {"x": tmp_path / "x.npy"}


def model(folder: Path, does: str) -> Path:
    path = folder / f"{does}.txt"
    path.write_text(does)
    return path


def failure(emulator: Emulator, path: Path, inputs: dict[str, Path], **limits: float) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        emulator.count(path, inputs, {}, **{"timeout_s": 120, **limits})
    return caught.value


def test_the_same_model_has_the_same_counts_whatever_ran_between(
    emulator: Emulator, tmp_path: Path, inputs: dict[str, Path]
) -> None:
    first = emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)
    other = emulator.count(model(tmp_path, "other"), inputs, {"n": 5000}, timeout_s=120)
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    again = emulator.count(model(tmp_path / "elsewhere" / "deeper", "work"), inputs, {}, timeout_s=120)
    assert again == first
    assert other.instructions > first.instructions > 1000
    assert len(first.misses) == 2
    assert 0 < first.misses[1] <= first.misses[0] < first.accesses < first.instructions


@pytest.mark.parametrize(
    ("does", "limits", "kind", "message"),
    [
        ("no model", {}, "error", "ValueError: this is no model"),
        ("crash", {}, "crash", "died of SIGSEGV"),
        ("leave", {}, "crash", "exit code 3"),
        ("hang", {"timeout_s": 1}, "timeout", "no answer within 1 s"),
        ("grow", {"memory_bytes": 200_000_000}, "out-of-memory", "more than the limit of 200 MB"),
    ],
)
def test_a_model_that_fails_leaves_the_emulator_usable(
    emulator: Emulator, tmp_path: Path, inputs: dict[str, Path], does: str, limits: dict[str, float], kind: str, message: str
) -> None:
    before = emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)
    failed = failure(emulator, model(tmp_path, does), inputs, **limits)
    assert (failed.kind, message in str(failed)) == (kind, True), str(failed)
    assert emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120) == before


def test_a_missing_file_is_told(emulator: Emulator, tmp_path: Path, inputs: dict[str, Path]) -> None:
    failed = failure(emulator, tmp_path / "nothing.txt", inputs)
    assert (failed.kind, "nothing.txt is not there" in str(failed)) == ("input", True), str(failed)


def test_the_guest_learns_nothing_of_this_machine_and_gets_the_first_example(
    emulator: Emulator, tmp_path: Path, inputs: dict[str, Path]
) -> None:
    told = str(failure(emulator, model(tmp_path, "tell"), inputs))
    assert told == str(failure(emulator, model(tmp_path, "tell"), inputs))  # the clock too
    assert "'board'" in told
    assert "4242" in told
    assert "'/', 1, {}, {'x': array([[0., 1.]], dtype=float32)}" in told
    for private in (os.environ.get("HOME", "?"), os.uname().nodename, str(tmp_path)):
        assert private in ("/", "") or private not in told


def test_a_guest_that_is_killed_is_started_again(emulator: Emulator, tmp_path: Path, inputs: dict[str, Path]) -> None:
    before = emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)
    [guest] = [process for process in psutil.Process().children() if "qemu" in process.name()]
    guest.kill()
    while guest.is_running() and guest.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120) == before


def test_a_guest_that_is_killed_while_it_works_is_started_again(
    emulator: Emulator, tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)
    killed: list[psutil.Process] = []

    def kill_once() -> None:
        if not killed:
            killed.extend(process for process in psutil.Process().children() if "qemu" in process.name())
            killed[0].kill()

    monkeypatch.setattr(emulator, "_waiting", kill_once)
    assert emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120) == before
    assert len(killed) == 1


def test_what_waits_can_end_the_guest_and_nothing_is_left(toolchain: Toolchain, tmp_path: Path, inputs: dict[str, Path]) -> None:
    stop = False

    def waiting() -> None:
        if stop:
            raise KeyboardInterrupt

    others = psutil.Process().children()
    emulator = Emulator(toolchain, CPUS["cortex-a53"], load=LOAD, imports=(), waiting=waiting)
    emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)
    [guest] = [process for process in psutil.Process().children() if process not in others and "qemu" in process.name()]
    command = guest.cmdline()
    folder = Path(command[command.index("-L") + 1]).parent
    assert folder.parent == toolchain.folder / "running"
    stop = True
    with pytest.raises(KeyboardInterrupt):
        emulator.count(model(tmp_path, "hang"), inputs, {}, timeout_s=120)
    assert not guest.is_running()
    assert not folder.exists()


def test_a_runtime_that_cannot_be_imported_is_told(toolchain: Toolchain, tmp_path: Path, inputs: dict[str, Path]) -> None:
    with (
        Emulator(toolchain, CPUS["cortex-a72"], load=LOAD, imports=("no_such_runtime",)) as emulator,
        pytest.raises(EnvironmentFailure, match="does not start: ModuleNotFoundError: No module named 'no_such_runtime'"),
    ):
        emulator.count(model(tmp_path, "work"), inputs, {}, timeout_s=120)


def network(path: Path, channels: int) -> Path:
    """Two convolutions, a pooling and a matrix product."""
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [weights("w1", channels, 3, 3, 3), weights("w2", channels, channels, 3, 3), weights("w3", channels, 10)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _busy() -> None:
    while True:
        pass


@pytest.mark.slow
def test_counts_of_onnxruntime_repeat_exactly(toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a quiet machine; by a loaded one, from other folders, after another model, with other variables and another stack."""
    runtime = OnnxRuntime()
    np.save(tmp_path / "x.npy", np.ones((1, 3, 32, 32), np.float32))
    inputs = {"x": tmp_path / "x.npy"}
    net, other = network(tmp_path / "net.onnx", 16), network(tmp_path / "other.onnx", 40)
    arguments = {"load": runtime.source(), "imports": runtime.imports}
    with Emulator(toolchain, CPUS["cortex-a72"], **arguments) as emulator:
        first = emulator.count(net, inputs, {}, timeout_s=300)

    far = tmp_path / "a folder, far away" / ("d" * 100)
    far.mkdir(parents=True)
    monkeypatch.chdir(far)
    monkeypatch.setenv("HOME", str(far))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("LD_BIND_NOW", "1")
    moved = dataclasses.replace(toolchain, folder=far)
    for name in ("roots", "packages", "counter.so"):
        (far / name).symlink_to(toolchain.folder / name)
    load = [multiprocessing.get_context("fork").Process(target=_busy, daemon=True) for _ in range(2)]
    for process in load:
        process.start()
    try:
        with Emulator(moved, CPUS["cortex-a72"], **arguments) as emulator:
            assert emulator.count(other, inputs, {}, timeout_s=600).instructions > first.instructions
            time.sleep(0.1)
            again = emulator.count(Path(shutil.copy(net, far / "copy.onnx")), inputs, {}, timeout_s=600)
    finally:
        for process in load:
            process.kill()
    assert again == first


@pytest.mark.slow
def test_newer_cores_have_other_kernels(toolchain: Toolchain, tmp_path: Path) -> None:
    """The guest sees the CPU that it is said to be: onnxruntime picks its kernels by it."""
    runtime = OnnxRuntime()
    np.save(tmp_path / "x.npy", np.ones((1, 3, 32, 32), np.float32))
    net = network(tmp_path / "net.onnx", 16)
    traces = {}
    for name in ("cortex-a53", "cortex-a76"):
        with Emulator(toolchain, CPUS[name], load=runtime.source(), imports=runtime.imports) as emulator:
            traces[name] = emulator.count(net, {"x": tmp_path / "x.npy"}, {}, timeout_s=300)
    old, new = ({block.words for block in trace.blocks} for trace in traces.values())
    assert old != new
    assert len(traces["cortex-a76"].misses) == 3
