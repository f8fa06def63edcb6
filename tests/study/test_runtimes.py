"""Several runtimes in one search: the runtime is the last step of a recipe."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orchestrator.api.resolve import profile_named
from orchestrator.measuring.model_info import ModelInfo, for_runtime
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.timing import Plan
from orchestrator.plugin import Runtime
from orchestrator.plugin.registry import Registry
from orchestrator.values.evidence import Estimate
from orchestrator.values.target import Target
from orchestrator_devices.host import HostDevice
from orchestrator_runtimes.onnxruntime import OnnxRuntime
from tests.conftest import Cli, Project, tiny_onnx

BOTH = ("--runtime", "onnxruntime", "--runtime", "twin")


@pytest.mark.slow
def test_candidates_are_timed_in_the_runtime_that_their_recipe_ends_with(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    installer("twins")
    done = cli("search", *project.onnx, "--method", "static-int8", *BOTH, "--trials", "4", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = json.loads((cli.folder / "run" / "results.json").read_text())
    assert found["baseline"]["artifact"]["runtime"] == "onnxruntime"
    complete = [c for c in found["candidates"] if c["state"] == "complete"]
    by = {c["id"]: "twin" if c["recipe"][-1]["method"] == "on-twin" else "onnxruntime" for c in complete}
    assert set(by.values()) == {"twin", "onnxruntime"}
    assert {c["id"]: c["artifact"]["runtime"] for c in complete} == by
    assert {c["id"]: c["latency"][0]["runtime"] for c in complete} == by
    assert any(note.startswith("the fastest of the front runs on ") for note in found["notes"])
    alone = next(c for c in complete if [s["method"] for s in c["recipe"]] == ["on-twin"])
    assert alone["artifact"]["digest"] == found["baseline"]["artifact"]["digest"], "the same file, in another runtime"
    assert alone["latency"][0]["ratio"] is not None


def test_runtimes_that_cannot_be_tried_together_are_one_line(cli: Cli, project: Project, installer: Callable[..., None]) -> None:
    installer("twins")
    for more, line in (
        ((*BOTH, "--target", "raspberry-pi"), "several runtimes in one search are timed on this machine alone"),
        ((*BOTH, "--storage", "sqlite:///shared.db"), "several runtimes in one search are timed on this machine alone"),
        (
            ("--runtime", "onnxruntime", "--runtime", "foreign"),
            "runtime foreign runs files of its own, not those that the others run",
        ),
        (
            ("--runtime", "foreign", "--runtime", "onnxruntime"),
            "runtime foreign runs files of its own, not those that the others run",
        ),
        (
            ("--runtime", "onnxruntime", "--runtime", "converting"),
            "runtime converting runs files of its own, not those that the others run",
        ),
        (("--runtime", "onnxruntime", "--runtime", "twinn"), "unknown runtime 'twinn'; did you mean twin"),
        (("--method", "on-twin"), "--method on-twin: twin is none of several runtimes that the search tries; name both with"),
    ):
        done = cli("search", *project.onnx, *more, "--dry-run")
        assert done.returncode == 2 and line in done.stderr, done.stderr


def test_estimate_of_the_first_runtime_is_not_that_of_another() -> None:
    estimate = Estimate(value=1.0, low=0.5, high=2.0, unit="ms", model="graph 1")
    model = ModelInfo(
        path="m.onnx", digest="0", size_bytes=1, compressed_bytes=1, macs=1, parameters=1, estimate=estimate, batch=1
    )
    assert for_runtime(model, None) == model
    other = for_runtime(model, "twin")
    assert (other.runtime, other.estimate) == ("twin", None)


class Threaded(Runtime):
    """Computes in a thread of its own, as delegates and accelerators do."""

    name = "threaded"

    def version(self) -> str:
        return "1.0"

    @staticmethod
    def load(path: str, threads: int, options: Any) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        pool = ThreadPoolExecutor(1)
        return lambda inputs: pool.submit(session.run, None, inputs).result()


@pytest.mark.parametrize(("runtime", "told"), [(Threaded(), False), (OnnxRuntime(), True)])
def test_cpu_time_stands_for_a_model_only_where_the_runtime_says_that_the_caller_computes(
    runtime: Runtime, told: bool, tmp_path: Path
) -> None:
    """What other threads compute, the calling thread's CPU time does not tell: a slow model would look fast."""
    onnx.save(tiny_onnx(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 12, 12), np.float32))
    registry = Registry.discover()
    profile = profile_named("host", registry)
    support = replace(profile.runtimes[0], name=runtime.name, options={})
    target = Target(profile=replace(profile, runtimes=(support,)), device="host", is_device=True, runtime=runtime.name, threads=1)
    name = onnx.load(tmp_path / "model.onnx").graph.input[0].name
    evaluator = Evaluator(
        target=target,
        device=HostDevice(),
        runtime=runtime,
        inputs={name: tmp_path / "x.npy"},
        most_s=60,
        memory_bytes=2**32,
        seed=0,
    )
    first, second = evaluator.time([tmp_path / "model.onnx"] * 2, Plan(max_seconds=1.0, rounds=1))
    assert (first.cpu_ratio is not None) == told


def test_figures_of_a_runtime_are_kept_under_the_options_of_the_one_that_they_were_timed_beside(tmp_path: Path) -> None:
    profile = profile_named("host", Registry.discover())

    def settings(options: dict[str, Any], runtime: str | None) -> dict[str, Any]:
        supports = tuple(
            replace(profile.runtimes[0], name=name, options=own) for name, own in (("onnxruntime", options), ("threaded", {}))
        )
        target = Target(
            profile=replace(profile, runtimes=supports), device="host", is_device=True, runtime="onnxruntime", threads=1,
            alternatives=("threaded",),
        )  # fmt: skip
        evaluator = Evaluator(
            target=target, device=HostDevice(), runtime=OnnxRuntime(), inputs={}, most_s=60, memory_bytes=2**32, seed=0,
            alternatives=(Threaded(),),
        )  # fmt: skip
        return evaluator.settings(runtime)

    there = settings({}, "threaded")
    assert there["runtime"][0] == "threaded" and there["beside"][0] == "onnxruntime"
    assert there != settings({"optimization": "basic"}, "threaded"), "the ratio is to the original, run with these"
    assert there == settings({}, "threaded") and there != settings({}, None)
