"""Searches and measurements where a simulated CPU stands in for the target: a toy one that counts a model's weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.report.failures import failure_groups
from orchestrator.study.pareto.early_stopping import EarlyStopping
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, Failure
from orchestrator.values.target import Limits
from tests.conftest import Cli, Project, install
from tests.study.test_robustness import results

CONSTANTS = """
[[simulations]]
runtime = "onnxruntime"
cpu = "toy-1"
cluster = "core"
cycles = { pipeline = 2.0 }
error = { float32 = 1.3 }
ratio_error = 1.05
thread_speedup = []
thread_error = 1.0
fitted_on = "nothing: a toy"
source = "test"
"""

BOARD = f"""
schema = 1
name = "toy-board"
title = "A toy board"
kind = "edge"

[sources]
test = "made up for a test"

[[clusters]]
name = "core"
cores = 1
clock_hz = 1e9
isa = ["asimd"]
source = "test"

[memory]
size_bytes = 1_073_741_824
source = "test"

[[runtimes]]
name = "onnxruntime"
threads = 1
formats = ["float32", "int8"]
int8_schemes = ["u8s8"]
channel_multiple = {{ float32 = 4, int8 = 8 }}
source = "test"
{CONSTANTS}
"""


@pytest.fixture
def toy(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with the device "toy" and the profile board.toml; what befalls it is told by files in its folder `toy`."""
    install(cli.packages, "toy")
    folder = cli.folder / "toy"
    folder.mkdir()
    (folder / "ready").touch()
    (folder / "board.toml").write_text(BOARD)
    monkeypatch.setenv("TOY", str(folder))
    return cli


@pytest.fixture
def options(project: Project, toy: Cli) -> Callable[..., list[str]]:
    """A search without training for the toy board."""

    def made(*more: str, trials: int = 3) -> list[str]:
        target = ["--target", str(toy.folder / "toy" / "board.toml")]
        return ["search", *project.onnx, *target, "--trials", str(trials), "--max-drop", "100%", "--output", "run", *more]

    return made


@pytest.mark.slow
def test_search_simulates_every_candidate_and_scores_the_front_by_the_targets_kernels(
    toy: Cli, options: Callable[..., list[str]]
) -> None:
    done = toy(*options())
    assert done.returncode == 0, done.stderr
    found = results(toy.folder / "run")
    complete = [c for c in found["candidates"] if c["state"] == "complete"]
    assert complete
    for candidate in (found["baseline"], *complete):
        kinds = [latency["evidence"] for latency in candidate["latency"]]
        assert kinds[0] == "simulated" and kinds[-1] == "measured-on-host"
        first = candidate["latency"][0]
        assert first["device"] == "toy:toy-1" and first["conditions"]["counts"]["instructions"] > 0
        assert first["low_ms"] < first["median_ms"] < first["high_ms"]
        assert first["p90_ms"] is None and first["samples"] is None
    assert found["baseline"]["latency"][0]["ratio"] is None
    assert all(c["latency"][0]["ratio"]["value"] > 0 for c in complete)
    assert found["environment"]["devices"]["toy:toy-1"]["cpu"] == "toy-1 (simulated)"
    for identifier in ("baseline", *found["front"]):
        there = next(c for c in (found["baseline"], *complete) if c["id"] == identifier)["simulated_outputs"]
        assert there["equal"] and there["largest_difference"] == 0  # the toy runs on this machine
        assert there["quality"]["examples"] >= 8
        assert there["quality"]["value"] == there["quality_here"]["value"]
    html = (toy.folder / "run" / "report.html").read_text()
    assert "by the target&#39;s kernels" in html or "by the target's kernels" in html
    simulated = (toy.folder / "toy" / "log").read_text().split()
    again = toy("resume", "run", "--trials", "4")
    assert again.returncode == 0, again.stderr
    now = (toy.folder / "toy" / "log").read_text().split()[len(simulated) :]
    assert len(results(toy.folder / "run")["candidates"]) == 4
    assert set(now).isdisjoint(set(simulated) - {"baseline"})


def test_search_goes_on_with_estimates_where_the_simulator_is_not_set_up(toy: Cli, options: Callable[..., list[str]]) -> None:
    (toy.folder / "toy" / "ready").unlink()
    done = toy(*options("--dry-run"))
    assert done.returncode == 2 and "toy-board" in done.stderr  # this profile has nothing to estimate from
    done = toy(*options("--device", "toy:toy-1"))
    assert done.returncode == 2 and "the toy is not set up" in done.stderr
    assert not (toy.folder / "run").exists()


@pytest.mark.slow
def test_candidate_that_cannot_be_simulated_fails_and_the_search_goes_on(toy: Cli, options: Callable[..., list[str]]) -> None:
    assert toy(*options(trials=1)).returncode == 0
    (identifier,) = [c["id"] for c in results(toy.folder / "run")["candidates"]]
    (toy.folder / "toy" / "fails").write_text(identifier)
    done = toy(*options("--output", "again", trials=2))
    assert done.returncode == 0, done.stderr
    states = {c["id"]: c for c in results(toy.folder / "again")["candidates"]}
    assert states[identifier]["failure"] == {"kind": "crash", "step": "simulate", "message": "the guest died"}
    assert [c["state"] for c in states.values()].count("complete") == 1


def test_search_says_that_the_original_cannot_be_simulated(toy: Cli, options: Callable[..., list[str]]) -> None:
    (toy.folder / "toy" / "fails").write_text("all")
    done = toy(*options())
    assert done.returncode == 2
    assert "the original itself fails (simulate): the guest died" in done.stderr


def test_measure_and_compare_give_the_simulated_figure(toy: Cli, project: Project) -> None:
    model = project.onnx[project.onnx.index("--model") + 1]
    done = toy("measure", model, "--device", "toy:toy-1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["evidence"] == "simulated" and found["device"] == "toy:toy-1" and found["threads"] == 1
    assert found["low_ms"] < found["median_ms"] < found["high_ms"] and found["p90_ms"] is None
    assert toy("measure", model, "--device", "toy:toy-1", "--json").stdout == done.stdout
    done = toy("measure", model, "--device", "toy:toy-1")
    assert "simulated" in done.stdout and "instructions" in done.stdout
    done = toy("compare", model, model, "--device", "toy:toy-1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["ratio"], found["basis"]) == ("same", 1.0, "simulated")
    assert toy("measure", model, "--device", "toy:toy-1", "--samples", "s.csv").returncode == 2


def stopping_of(candidates: list[CandidateResult], **limits: Any) -> EarlyStopping:
    request = SimpleNamespace(limits=Limits(**limits), useful_drop=None)
    task = SimpleNamespace(direction=Direction.MAXIMIZE, metric="accuracy")
    return EarlyStopping({c.id: c for c in candidates}, request, task)  # type: ignore[arg-type]


def with_both(candidate: CandidateResult, simulated_ms: float) -> CandidateResult:
    """The candidate with a simulated latency before its estimated one."""
    (estimated,) = candidate.latency
    first = replace(estimated, evidence="simulated", median_ms=simulated_ms)
    return replace(candidate, latency=[first, estimated], feasible=True)


def test_hopeless_candidates_are_not_simulated_once_the_error_of_estimates_is_known(make: Callable[..., CandidateResult]) -> None:
    # Simulated times are twice the estimated ones, and up to 20 % off that.
    known = [with_both(make("baseline", quality=0.9, latency=10), 20.0)]
    for k, error in enumerate((1.0, 1.2, 0.9, 1.1, 0.95)):
        known.append(with_both(make(f"c{k}", quality=0.89, latency=5, size=900 + k), 10.0 * error))
    slow_and_worse = make("slow", quality=0.7, latency=9, size=1000)
    nearly = make("nearly", quality=0.89, latency=5.2, size=1000)
    better = make("better", quality=0.95, latency=9, size=1000)
    assert stopping_of(known[:-1]).hopeless(slow_and_worse) is None  # too few have both
    stopping = stopping_of(known)
    assert "even then others are better" in (stopping.hopeless(slow_and_worse) or "")
    assert stopping.hopeless(nearly) is None
    assert stopping.hopeless(better) is None
    assert "violates the limit of 12 ms" in (stopping_of(known, max_latency_ms=12.0).hopeless(better) or "")


def test_candidates_that_were_not_simulated_stand_in_one_group_of_the_report(make: Callable[..., CandidateResult]) -> None:
    def stopped(name: str, why: str) -> CandidateResult:
        return replace(make(name), state="stopped", failure=Failure(kind="limit", step="estimate", message=why))

    run = SimpleNamespace(candidates=[stopped("a", "2 ms"), make("b"), stopped("c", "3 ms")])
    (group,) = failure_groups(run)  # type: ignore[arg-type]
    assert group.title == "Not simulated: by its estimate it could not reach the front"
    assert [candidate.id for candidate in group.candidates] == ["a", "c"]


def test_sampler_learns_the_foreseen_latency_of_what_was_stopped(make: Callable[..., CandidateResult]) -> None:
    known = [with_both(make("baseline", latency=10), 30.0)]
    stopped = replace(make("stopped", latency=5), state="stopped")
    told = stopping_of(known).for_sampler(stopped)
    assert told is not None and told.latency[0].median_ms == pytest.approx(15.0)
    assert stopping_of(known).constraints(stopped) == {}
    assert stopping_of(known, max_latency_ms=10.0).constraints(stopped)["max_latency"] == pytest.approx(0.5)
    failed = replace(make("failed"), state="failed", quality=None, artifact=None, latency=[])
    assert stopping_of(known).for_sampler(failed) is None
