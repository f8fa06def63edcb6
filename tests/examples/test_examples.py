"""The example packages install into a fresh environment, pass the kit and their own tests, and do what their README says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECTS, Project
from tests.examples.conftest import Installer

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("examples")]  # one fresh environment serves all of them


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize("name", ["method", "runtime-openvino", "device-interpreter", "metric-task"])
def test_example_passes_the_kit_and_its_own_tests(fresh: Installer, name: str) -> None:
    cli = fresh(name)
    done = cli("plugins", "check", str(EXAMPLES / name), "--json", timeout=900)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    passed = {check["of"] for check in found["checks"] if check["outcome"] == "passed"}
    assert "the package's own tests" in passed and len(passed) > 1, passed
    assert not (EXAMPLES / name / "build").exists(), "checking writes nothing into the package's folder"


def test_one_search_tries_both_runtimes_and_says_which_won(fresh: Installer, project: Project) -> None:
    cli = fresh("runtime-openvino")
    both = ("--runtime", "onnxruntime", "--runtime", "openvino")
    done = cli("search", *project.onnx, "--method", "static-int8", *both, "--trials", "4", "--output", "run", timeout=600)
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert found["baseline"]["artifact"]["runtime"] == "onnxruntime"
    there = [c for c in found["candidates"] if c["recipe"][-1]["method"] == "on-openvino"]
    here = [c for c in found["candidates"] if c["recipe"][-1]["method"] != "on-openvino"]
    assert there and here
    for candidates, runtime in ((there, "openvino"), (here, "onnxruntime")):
        for candidate in (c for c in candidates if c["state"] == "complete"):
            assert candidate["artifact"]["runtime"] == candidate["latency"][0]["runtime"] == runtime
            assert candidate["latency"][0]["ratio"]["low"] > 0, "timed beside the original"
    assert any(c["state"] == "complete" for c in there)
    (won,) = [note for note in found["notes"] if note.startswith("the fastest of the front runs on")]
    assert "onnxruntime" in won or "openvino" in won
    again = cli("resume", "run", "--trials", "5", timeout=600)
    assert again.returncode == 0, again.stderr


def test_example_of_a_runtime_serves_alone(fresh: Installer, project: Project) -> None:
    cli = fresh("runtime-openvino")
    done = cli("search", *project.onnx, "--method", "static-int8", "--runtime", "openvino", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert found["target"]["runtime"] == found["baseline"]["latency"][0]["runtime"] == "openvino"


def test_example_of_a_device_times_a_model(fresh: Installer, project: Project) -> None:
    cli = fresh("device-interpreter")
    model = str(project.folder / "model.onnx")
    done = cli("measure", model, "--device", f"interpreter:{cli.python}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["median_ms"] > 0
    refused = cli("measure", model, "--device", "interpreter:/no/such/python")
    assert refused.returncode == 2 and "cannot be started" in refused.stderr


def test_example_of_a_metric_and_a_task_are_searched(fresh: Installer) -> None:
    cli = fresh("metric-task")
    task = ("--model", "orchestrator_tumours.network:network", "--data", "orchestrator_tumours.data:splits")
    done = cli("search", *task, "--metric", "macro-f1", "--method", "dynamic-int8", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    quality = results(cli.folder / "run")["baseline"]["quality"]["validation"]
    assert quality["low"] < quality["value"] <= 1.0 and quality["value"] > 0.9


def test_example_of_a_method_takes_part_in_a_search(fresh: Installer, project: Project) -> None:
    cli = fresh("method")
    shutil.copy(PROJECTS / "smooth" / "smooth.py", project.folder)
    shutil.copy(project.folder / "data.py", project.folder / "splits.py")
    done = cli(
        *("search", "--model", project.ref("smooth:net"), "--data", project.ref("splits:splits")),
        *("--method", "relu6", "--trials", "1", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    (candidate,) = results(cli.folder / "run")["candidates"]
    assert candidate["recipe"][0]["method"] == "relu6" and candidate["state"] == "complete"
