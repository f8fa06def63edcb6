"""Calibration: on a machine whose speed is known by construction the profile says so, and on this one it comes out whole."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

import orchestrator.api.characterize as characterize_module
from orchestrator.api.characterize import characterize
from orchestrator.devices import interrupt
from orchestrator.devices.session import Session
from orchestrator.errors import InputError, Interrupted, JobFailed
from orchestrator.hardware.features import UNITS, features
from orchestrator.hardware.graph import count
from orchestrator.hardware.machine_files import gathered
from orchestrator.hardware.profile_file import check_profile, load_profile
from orchestrator.measuring.characterization.graph import INPUT
from orchestrator.measuring.characterization.int8 import quantize
from orchestrator.measuring.characterization.machine_values import Formats, best_threads, channel_multiple, checked, core_of, slug
from orchestrator.measuring.characterization.networks import micro_networks, real_networks, staircase_networks
from orchestrator.plugin.device import Device
from orchestrator.values.characterization import FitCheck
from orchestrator.values.device import DeviceState, Job
from orchestrator.values.profile import Cluster, LatencyModel
from orchestrator.values.results import Difference
from tests.devices.sshd import running_board

NANOSECONDS = {
    **dict.fromkeys(UNITS, 0.5),
    "pointwise": 0.05,
    "winograd": 0.04,
    "convolution": 0.06,
    "image": 0.08,
    "depthwise": 0.3,
    "depthwise_strided": 0.6,
    "dense": 0.4,
    "matmul": 0.05,
    "exponential": 2.0,
    "operator": 3000.0,
}
WIDTH = 8  # channels that the made-up kernels work on together
FILES = {
    "/proc/cpuinfo": "model name : Make Believe 1\nFeatures : fp asimd asimddp\n",
    "/proc/meminfo": "MemTotal: 8388608 kB\n",
    **{f"/sys/devices/system/cpu/cpu{n}/topology/core_id": str(n) for n in range(4)},
    **{f"/sys/devices/system/cpu/cpu{n}/topology/physical_package_id": "0" for n in range(4)},
}


def seconds(model: Path, threads: int) -> float:
    """The made-up machine's time: constants times features, in float32; int8 takes a third, a second thread halves half of it."""
    graph = count(model)
    total = 0.0
    for operator in graph.operators:
        amounts = features(operator, "float32", "onnxruntime")
        if operator.product is not None and operator.product.kernel == (1, 1):
            inside, outside = operator.product.in_channels, operator.product.out_channels
            padded = -(-inside // WIDTH) * WIDTH * -(-outside // WIDTH) * WIDTH
            amounts["pointwise"] = float(math.prod(operator.product.out_size) * padded)
        own = sum(NANOSECONDS[name] * amount for name, amount in amounts.items())
        total += own / 3 if operator.number_format == "int8" else own
    return total * 1e-9 * (1 if threads == 1 else 0.6)


class MadeUpSession(Session):
    def __init__(self, job: Job) -> None:
        self._job = job
        if job.model.suffix == ".onnx":
            if "float16" in str(job.model):
                raise JobFailed("error", "this runtime has no float16")
            self._seconds = seconds(job.model, job.threads)
        elif "bytes" in job.options:
            self._seconds = 2 * float(job.options["bytes"]) / (4e9 * job.threads)
        self._random = np.random.default_rng(0)

    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        noise = 1 + 0.002 * self._random.standard_normal(min(runs, 5))
        return [(self._seconds * n, self._seconds * n, self._seconds * n) for n in noise]

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        answer = np.frombuffer(json.dumps({"machine": "aarch64", "files": FILES}).encode(), np.uint8)[None]
        np.save(folder / "answer.npy", answer)
        return [folder / "answer.npy"]

    def state(self) -> DeviceState | None:
        return None

    def peak_memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to end."""


class MadeUpDevice(Device):
    """A machine of known speed."""

    scheme: ClassVar[str] = "made-up"
    remote: ClassVar[bool] = True

    def open(self, job: Job) -> Session:
        return MadeUpSession(job)

    def environment(self) -> dict[str, Any]:
        return {"cpu": "Make Believe 1", "versions": {"onnxruntime": "9.9"}}

    def cores(self) -> int:
        return 4


@pytest.fixture
def made_up() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # bad input does not get as far as the device
        patch.setattr(characterize_module, "attach", lambda reference, registry: (MadeUpDevice(),))
        yield


def difference(value: float, spread: float = 0.01) -> Difference:
    return Difference(value=value, low=value * (1 - spread), high=value * (1 + spread))


@pytest.mark.parametrize("sample", [*micro_networks(), *real_networks(), *staircase_networks()], ids=lambda s: s.name)
def test_network_is_legal_and_fully_counted_when_built(sample: Any, tmp_path: Path) -> None:
    model = sample.build("float32")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    assert not count(tmp_path / "model.onnx").unknown
    assert model.ByteSize() < 20e6


def test_tiny_networks_exercise_every_feature_and_the_urgent_ones_most(tmp_path: Path) -> None:
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for sample in micro_networks():
        onnx.save(sample.build("float32"), tmp_path / "model.onnx")
        for operator in count(tmp_path / "model.onnx").operators:
            for runtime in ("onnxruntime", "ncnn"):
                seen[sample.urgent] |= set(features(operator, "float32", runtime))
    assert seen[True] | seen[False] == set(UNITS)
    assert seen[True] >= {"pointwise", "winograd", "convolution", "image", "depthwise", "dense", "matmul", "operator", "pool"}


def test_names_of_networks_are_their_own() -> None:
    names = [s.name for s in (*micro_networks(), *real_networks(), *staircase_networks())]
    assert len(set(names)) == len(names)


def test_quantized_network_computes_in_int8_when_written(tmp_path: Path) -> None:
    sample = micro_networks()[0]
    onnx.save(sample.build("float32"), tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx", sample.shape, "s8s8")
    assert {o.number_format for o in count(tmp_path / "int8.onnx").operators if o.macs} == {"int8"}
    assert onnx.load(tmp_path / "int8.onnx").graph.input[0].name == INPUT


@pytest.mark.usefixtures("made_up")
def test_profile_says_what_the_machine_is_when_its_speed_is_known(tmp_path: Path) -> None:
    said: list[str] = []
    found = characterize(device="made-up", seconds=60, output=tmp_path, progress=said.append)
    assert found.path == tmp_path / "make-believe-1.toml"
    assert check_profile(found.path) == []
    profile = load_profile(str(found.path), {})
    assert profile == found.profile
    assert (profile.device, profile.clusters[0].cores, profile.memory.size_bytes) == ("made-up", 4, 8 << 30)
    assert profile.memory.bandwidth_bytes_per_second == pytest.approx(4e9 * 4, rel=0.02)
    (support,) = profile.runtimes
    assert support.channel_multiple["float32"] == WIDTH
    assert (support.formats, support.legal_formats) == (("float32", "int8"), ("float32", "int8"))
    assert support.threads == 4
    assert {(m.number_format, m.threads) for m in profile.latency_models} == {(f, t) for f in ("float32", "int8") for t in (1, 4)}
    assert all("held against 5 networks" in m.fitted_on for m in profile.latency_models)
    assert {m.mean_error for m in profile.latency_models} != {None}
    floats = [c for c in found.checks if c.number_format == "float32" and c.threads == 1]
    assert len(floats) == len(real_networks())
    assert sum(abs(c.error) for c in floats) / len(floats) < 0.1
    inside = [c.estimated.low <= c.measured.value <= c.estimated.high for c in found.checks]
    assert sum(inside) >= 0.8 * len(inside)
    assert said
    assert "9.9" in profile.sources["measured"]


@pytest.mark.usefixtures("made_up")
def test_profile_is_whole_when_the_budget_reaches_for_almost_nothing(tmp_path: Path) -> None:
    found = characterize(device="made-up", seconds=0.001, name="small", output=tmp_path / "mine.toml")
    assert check_profile(tmp_path / "mine.toml") == []
    assert [(m.number_format, m.threads) for m in found.profile.latency_models] == [("float32", 1)]
    assert any("the budget of 0.001 s did not reach" in note for note in found.notes)
    assert "were not measured" in found.profile.sources["runtime"]


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"seconds": 0}, "--seconds must be more than 0"),
        ({"threads": (0,)}, "--threads must be 1 or more"),
        ({"threads": (9,)}, "--threads 9: the device has 4 cores"),
        ({"name": "a/b"}, "--name 'a/b' must be letters"),
        ({"name": "host"}, "'host' is the machine itself"),
        ({"runtime": "onnxrt"}, "unknown runtime 'onnxrt'; did you mean onnxruntime?"),
        ({"sekonds": 3}, "unknown option 'sekonds'; did you mean seconds?"),
        ({"output": "gone/mine.toml"}, "there is no folder 'gone'"),
        ({"output": "mine.txt"}, "must be a .toml file or a folder"),
        ({"output": "there.toml"}, "is there already; give --force to replace it"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(
    said: Mapping[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.toml").write_text("mine")
    with pytest.raises(InputError) as caught:
        characterize(device="made-up", **said)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "there.toml").read_text() == "mine"


@pytest.mark.usefixtures("made_up")
def test_nothing_is_written_when_the_user_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10**9))

    def check() -> None:
        if next(calls) > 30:
            raise Interrupted("interrupted")

    monkeypatch.setattr(interrupt, "check", check)
    with pytest.raises(Interrupted):
        characterize(device="made-up", seconds=60, output=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("made_up")
def test_runtime_that_runs_nothing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MadeUpSession, job: Job) -> None:
        raise JobFailed("error", "no such operator")

    monkeypatch.setattr(MadeUpSession, "__init__", broken)
    with pytest.raises(InputError, match="does not tell what it is"):
        characterize(device="made-up", seconds=1, output=tmp_path)
    monkeypatch.setattr(
        characterize_module, "machine_files", lambda device, folder: gathered(json.dumps({"machine": "", "files": {}}).encode())
    )
    with pytest.raises(InputError, match=r"onnxruntime cannot run .* so nothing can be compared: no such operator"):
        characterize(device="made-up", seconds=1, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_multiple_is_that_of_the_stairs_and_none_when_time_only_grows() -> None:
    def staircase(width: int, fixed: float = 20.0) -> dict[int, Difference]:
        blocks = {c: fixed + -(-c // width) * width for c in (32, 33, 36, 40, 48)}
        return {c: difference(blocks[c] / blocks[33], 0.01) for c in (32, 36, 40, 48)}

    assert {width: channel_multiple(staircase(width)) for width in (16, 8, 4)} == {16: 16, 8: 8, 4: 4}
    assert channel_multiple(staircase(1)) is None
    assert channel_multiple({c: Difference(value=1.0, low=0.5, high=2.0) for c in (32, 36, 40, 48)}) is None, "noise is no stairs"


def test_formats_and_schemes_follow_when_ratios_are_clear() -> None:
    formats = Formats(
        float16=[difference(1.2)], int8={"u8s8": [difference(0.5)], "s8s8": [difference(0.4)], "u8u8": [difference(1.1)]}
    )
    assert formats.useful() == ("float32", "int8")
    assert formats.legal() == ("float32", "float16", "int8")
    assert formats.schemes() == ("s8s8", "u8s8")
    slow = Formats(int8={"u8s8": [difference(1.5)]})
    assert (slow.useful(), slow.schemes()) == (("float32",), ("u8s8",))


def test_threads_are_taken_only_when_they_are_worth_their_cores() -> None:
    assert best_threads({1: [10.0, 5.0], 2: [6.0, 3.0], 4: [5.9, 3.0]}) == 2
    assert best_threads({1: [10.0], 4: [9.9]}) == 1


def test_error_is_that_of_networks_outside_the_fit() -> None:
    model = LatencyModel(
        runtime="r", number_format="float32", threads=1, nanoseconds={"operator": 1.0}, error=1.2, fitted_on="x", source="y"
    )

    def check(estimate: float) -> FitCheck:
        return FitCheck(network="n", number_format="float32", threads=1, measured=difference(1.0), estimated=difference(estimate))

    alone = checked(model, [check(1.5)])
    assert (alone.error, alone.mean_error) == (1.5, 0.5)
    assert checked(model, []) == model
    assert checked(model, [check(1.0)]).error == model.error, "one network proves nothing"
    several = checked(replace(model, error=3.0), [check(1.1), check(0.9), check(1.05), check(0.95)])
    assert 1.1 < several.error < 1.25, "what networks show counts, not what single operators do"
    assert checked(model, [check(1.0)] * 4, least=1.3).error == 1.3


def test_names_and_cores_are_read_off_when_a_machine_describes_itself() -> None:
    assert slug("AMD Ryzen(TM) 7 7840U w/ Radeon 780M") == "amd-ryzen-7-7840u-w-radeon-780m"
    assert slug("???") == "machine"
    core = core_of(Cluster(name="Cortex-A55", cores=4, isa=("asimd", "asimdhp", "asimddp"), source="s", clock_hz=1.8e9))
    assert (core.in_order, core.half, core.dot, core.clock_hz) == (True, True, True, 1.8e9)


@pytest.mark.slow
def test_this_machine_is_measured_when_the_budget_is_small(tmp_path: Path) -> None:
    found = characterize(seconds=2, output=tmp_path / "here.toml")
    assert check_profile(tmp_path / "here.toml") == []
    assert found.profile.device == "host"
    assert found.checks
    assert all(check.measured.value > 0 for check in found.checks)


@pytest.mark.slow
def test_board_over_ssh_is_measured_and_becomes_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with running_board(tmp_path / "board") as board:
        monkeypatch.setenv("ORCHESTRATE_SSH", board.client)
        board.prepare()
        found = characterize(device=board.reference, seconds=0.001, name="kitchen", output=tmp_path)
    assert check_profile(tmp_path / "kitchen.toml") == []
    assert found.profile.device == board.reference
    assert found.profile.memory.bandwidth_bytes_per_second
    assert found.profile.clusters[0].isa
