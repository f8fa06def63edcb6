"""Several runtimes in one search: the runtime is the last step of a recipe."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import Cli, Project

TWIN = '''
from orchestrator.plugin import Runtime, hookimpl


class Twin(Runtime):
    """onnxruntime without its graph optimizations: another runtime as far as anybody can tell."""

    name = "twin"
    imports = ("onnxruntime",)

    def version(self):
        return "1.0"

    @staticmethod
    def load(path, threads, options):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)


class Foreign(Twin):
    name, suffix = "foreign", ".bin"


@hookimpl
def orchestrator_runtimes():
    return [Twin(), Foreign()]
'''
BOTH = ("--runtime", "onnxruntime", "--runtime", "twin")


@pytest.mark.slow
def test_candidates_are_timed_in_the_runtime_that_their_recipe_ends_with(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    installer("twins", TWIN)
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
    installer("twins", TWIN)
    for more, line in (
        ((*BOTH, "--target", "raspberry-pi"), "several runtimes in one search are timed on this machine alone"),
        ((*BOTH, "--storage", "sqlite:///shared.db"), "several runtimes in one search are timed on this machine alone"),
        (
            ("--runtime", "onnxruntime", "--runtime", "foreign"),
            "runtime foreign runs .bin files, and can only be searched for alone",
        ),
        (("--runtime", "onnxruntime", "--runtime", "twinn"), "unknown runtime 'twinn'; did you mean twin"),
        (("--method", "on-twin"), "no method"),
    ):
        done = cli("search", *project.onnx, *more, "--dry-run")
        assert done.returncode == 2 and line in done.stderr, done.stderr
