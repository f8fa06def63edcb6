"""Searches that spend their time well: what cannot reach the front is stopped, what earlier runs found comes first."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli, Project

SEARCH = """
schema = 1
name = "plain"
title = "at random"
sampler = "random"
trials = 14
early_stopping = {stopping}
"""


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.fixture
def school(cli: Cli, installer: Any) -> Cli:
    installer("school")
    for stopping in ("true", "false"):
        (cli.folder / f"{stopping}.toml").write_text(SEARCH.format(stopping=stopping))
    return cli


def states(found: dict[str, Any], spoilt: bool) -> list[str]:
    return [c["state"] for c in found["candidates"] if c["recipe"][0]["parameters"]["spoil"] is spoilt]


@pytest.mark.slow
def test_trainings_that_cannot_reach_the_front_are_stopped_and_said_so(school: Cli, project: Project) -> None:
    task = ["--model", project.ref("model:net"), "--data", project.ref("data:splits"), "--method", "school"]
    done = school("search", *task, "--search", "true.toml", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(school.folder / "run")
    assert set(states(found, spoilt=False)) == {"complete"}
    assert "stopped" in states(found, spoilt=True)
    stopped = [c for c in found["candidates"] if c["state"] == "stopped"]
    for candidate in stopped:
        assert candidate["failure"]["kind"] == "limit" and "could no longer reach the front" in candidate["failure"]["message"]
        assert candidate["rungs"][-1]["quality"] < 0.7
        assert candidate["quality"] is None and candidate["artifact"] is None, "what was seen on the way is no result"
    complete = next(c for c in found["candidates"] if c["state"] == "complete")
    assert [rung["share"] for rung in complete["rungs"]] == [0.0, 0.25, 0.5]
    assert "Stopped in its training" in (school.folder / "run" / "report.html").read_text()
    first = min(stopped, key=lambda c: c["trial"])
    enough = ["--trials", str(1 + sum(c["trial"] < first["trial"] for c in found["candidates"]))]
    done = school("search", *task, "--search", "false.toml", *enough, "--output", "whole")
    assert done.returncode == 0, done.stderr
    whole = {c["id"]: c for c in results(school.folder / "whole")["candidates"]}
    assert {c["state"] for c in whole.values()} == {"complete"}
    assert whole[first["id"]]["quality"]["validation"]["value"] < 0.7, "it was right to stop it"


@pytest.mark.slow
def test_models_of_an_earlier_run_come_first(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--trials", "6", "--seed", "1", "--output", "first")
    assert done.returncode == 0, done.stderr
    first = results(cli.folder / "first")
    done = cli(
        "search", *project.onnx, "--target", "raspberry-pi-4", "--trials", "4", "--warm-start", "first", "--output", "second"
    )
    assert done.returncode == 0, done.stderr
    second = results(cli.folder / "second")
    tried = [c["id"] for c in sorted(second["candidates"], key=lambda c: c["trial"])]
    known = {c["id"] for c in first["candidates"]}
    assert set(tried[:2]) <= known, "two thirds of the budget at most"
    best = [name for name in (first["recommended"], *first["front"]) if name != "baseline"]
    assert tried[0] == best[0]
    assert any("of the 6 models of" in note and "are tried first" in note for note in second["notes"])
    qualities = {c["id"]: c["quality"]["validation"]["value"] for c in first["candidates"] if c["quality"]}
    for candidate in second["candidates"]:
        if candidate["id"] in qualities:
            assert candidate["quality"]["validation"]["value"] == qualities[candidate["id"]]


def test_warm_start_says_what_it_cannot_use(cli: Cli, project: Project) -> None:
    missing = cli("search", *project.onnx, "--trials", "1", "--warm-start", "nowhere", "--output", "run")
    assert missing.returncode == 2
    assert missing.stderr.startswith("orchestrate: --warm-start: ") and "nowhere" in missing.stderr
    assert not (cli.folder / "run").exists()


@pytest.mark.slow
def test_several_targets_share_what_is_built_and_have_a_run_each(cli: Cli, project: Project) -> None:
    targets = ["--target", "raspberry-pi-4", "--target", "raspberry-pi-5"]
    done = cli("search", *project.onnx, *targets, "--trials", "4", "--output", "both", "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["target"]["profile"], second["target"]["profile"]) == ("raspberry-pi-4", "raspberry-pi-5")
    for name in ("raspberry-pi-4", "raspberry-pi-5"):
        assert (cli.folder / "both" / name / "report.html").is_file()
    built = {c["id"]: c["artifact"]["digest"] for c in first["candidates"] if c["artifact"]}
    timed = {c["id"]: c["artifact"]["digest"] for c in second["candidates"] if c["artifact"]}
    assert timed == built, "the same files, timed on each"
    assert [c["latency"][0]["device"] for c in second["candidates"]] != [c["latency"][0]["device"] for c in first["candidates"]]

    arrays = dict(np.load(project.folder / "arrays.npz"))
    np.savez(project.folder / "other.npz", **{name: array[:100] for name, array in arrays.items()})
    model = ["--model", project.onnx[1], "--data", str(project.folder / "other.npz")]
    other = cli("search", *model, "--trials", "1", "--warm-start", "both/raspberry-pi-4")
    assert other.returncode == 2
    assert "is a run of another model or other data" in other.stderr
