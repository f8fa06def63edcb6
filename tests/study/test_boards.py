"""Searches on boards: shared work, broken connections, boards that are lost and come back, the measurement at the end."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli, Project, install
from tests.study.test_robustness import descendants, gone, results, wait_for_candidates

DURING = "timed during the search, beside the original alone"
ALONE = "timed during the search, alone"


@pytest.fixture
def lab(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with boards "lab://..."; what befalls them is told by files in its folder `lab`."""
    install(cli.packages, "lab")
    (cli.folder / "lab").mkdir()
    monkeypatch.setenv("LAB", str(cli.folder / "lab"))
    return dataclasses.replace(cli, patches={**cli.patches, "orchestrator.study.candidates.device_pool:FIRST_PAUSE_S": 0.2})


@pytest.fixture
def options(project: Project) -> Callable[..., list[str]]:
    """A search without training on boards of those names."""

    def made(*boards: str, trials: int = 3, output: str = "run", wait: str = "0") -> list[str]:
        devices = ",".join(f"lab://{board}" for board in boards)
        more = ["--trials", str(trials), "--wait-for-device", wait, "--max-drop", "100%", "--output", output]
        return ["search", *project.onnx, "--target", "raspberry-pi", "--device", devices, *more]

    return made


def phases(run: Path) -> list[str]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event["what"] for event in events if event["event"] == "phase"]


def measured(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    """Its latencies but for the estimate that stands beside them."""
    return [latency for latency in candidate["latency"] if latency["evidence"] != "estimated"]


def log(lab: Cli, board: str) -> list[str]:
    return (lab.folder / "lab" / f"{board}.log").read_text().splitlines()


def recipes(found: dict[str, Any]) -> list[Any]:
    return [candidate["recipe"] for candidate in found["candidates"]]


@pytest.mark.slow
def test_no_trial_fails_when_the_connection_breaks_and_the_front_is_measured_again(
    lab: Cli, options: Callable[..., list[str]]
) -> None:
    (lab.folder / "lab" / "a.breaks").write_text(json.dumps({"time": [1, 1], "predict": [1, 1]}))
    done = lab(*options("a"))
    assert done.returncode == 0, done.stderr
    run = lab.folder / "run"
    found = results(run)
    assert [c["state"] for c in found["candidates"]] == ["complete"] * 3
    assert log(lab, "a").count("lost") == 2
    assert log(lab, "a")[0] == "check"
    assert log(lab, "a")[-1] == "release"
    assert found["environment"]["devices"] == {"lab://a": {"board": "a"}}
    again = [what for what in phases(run) if what.startswith("measuring the front again, side by side (")]
    assert len(again) == 1
    twice = [c for c in (found["baseline"], *found["candidates"]) if len(measured(c)) == 2]
    assert {*found["front"], "baseline"} <= {c["id"] for c in twice}
    for candidate in twice:
        first, second = measured(candidate)
        assert first["evidence"] == second["evidence"] == "measured-on-target"
        assert first["device"] == second["device"] == "lab://a"
        when = ALONE if candidate["id"] == "baseline" else DURING
        assert second["note"].endswith(when) and when not in first["note"]
        assert [latency["device"] for latency in candidate["latency"] if latency["evidence"] == "estimated"] == ["raspberry-pi-4"]
        kept = json.loads((run / "work" / "candidates" / f"{candidate['id']}.json").read_text())
        assert [latency["median_ms"] for latency in measured(kept)] == [second["median_ms"]], "the record is the search's own"
    for candidate in found["candidates"]:
        with np.load(run / "samples" / f"{candidate['id']}.npz") as samples:
            assert np.median(samples["ms"]) == pytest.approx(measured(candidate)[-1]["median_ms"])

    figures = [c["latency"] for c in found["candidates"]]
    assert lab("resume", "run").returncode == 0
    assert [c["latency"] for c in results(run)["candidates"]] == figures, "what is finished is not done again"
    assert lab("resume", "run", "--trials", "4").returncode == 0
    after = results(run)
    assert len(after["candidates"]) == 4
    timed = json.loads((run / "work" / "again.json").read_text())["timed"]
    assert {*after["front"]} - {"baseline"} <= {*timed}, "whoever is on the front now was measured beside the others"
    assert all(len(measured(c)) == 2 for c in after["candidates"] if c["id"] in timed)


@pytest.mark.slow
def test_search_ends_resumable_and_tries_the_candidate_again_when_the_board_is_lost(
    lab: Cli, options: Callable[..., list[str]]
) -> None:
    (lab.folder / "lab" / "a.breaks").write_text(json.dumps({"predict": [1, 1], "gone": True}))
    done = lab(*options("a"))
    assert done.returncode == 4
    assert done.stderr.strip().splitlines()[-1].endswith(f"continue with: orchestrate resume {lab.folder / 'run'}")
    assert "lab://a does not answer" in done.stderr
    found = results(lab.folder / "run")
    lost = [c for c in found["candidates"] if c["state"] == "failed"]
    assert [(c["failure"]["kind"], c["failure"]["step"]) for c in lost] == [("error", "device")]
    assert "does not answer" in lost[0]["failure"]["message"]
    assert "does not answer" in found["search"]["ended"]
    (lab.folder / "lab" / "a.gone").unlink()
    done = lab("resume", "run")
    assert done.returncode == 0, done.stderr
    after = results(lab.folder / "run")
    assert [c["state"] for c in after["candidates"]] == ["complete"] * 3
    events = [json.loads(line) for line in (lab.folder / "run" / "log.jsonl").read_text().splitlines()]
    resumed = next(k for k, event in enumerate(events) if event["event"] == "resumed")
    asked = [event["id"] for event in events[resumed:] if event["event"] == "trial"]
    assert asked[0] == lost[0]["id"], "ahead of new ones"


def test_search_waits_for_a_board_that_comes_back(lab: Cli, options: Callable[..., list[str]]) -> None:
    (lab.folder / "lab" / "a.breaks").write_text(json.dumps({"predict": [0, 1], "gone": True}))
    (lab.folder / "lab" / "a.back").write_text("3")
    done = lab(*options("a", trials=2, wait="60s"))
    assert done.returncode == 0, done.stderr
    assert "waiting for lab://a does not answer" in done.stdout
    assert sorted(c["state"] for c in results(lab.folder / "run")["candidates"]) == ["complete", "failed"]


@pytest.mark.slow
def test_search_ends_resumable_when_the_board_has_another_trouble(lab: Cli, options: Callable[..., list[str]]) -> None:
    (lab.folder / "lab" / "a.full").touch()
    done = lab(*options("a", trials=1))
    assert done.returncode == 4
    assert "no space left on lab://a; fix it, then continue with: orchestrate resume" in done.stderr
    assert results(lab.folder / "run")["candidates"] == [], "it is not the candidate's fault"
    (lab.folder / "lab" / "a.full").unlink()
    assert lab("resume", "run").returncode == 0
    assert [c["state"] for c in results(lab.folder / "run")["candidates"]] == ["complete"]


@pytest.mark.slow
def test_two_boards_share_the_work_and_the_same_seed_asks_the_same(lab: Cli, options: Callable[..., list[str]]) -> None:
    assert lab(*options("a", "b", trials=5, output="one")).returncode == 0
    (lab.folder / "lab" / "a.slow").write_text("0.7")
    done = lab(*options("a", "b", trials=5, output="two"))
    assert done.returncode == 0, done.stderr
    one, two = results(lab.folder / "one"), results(lab.folder / "two")
    assert recipes(one) == recipes(two)
    assert one["target"]["device"] == "lab://a,lab://b"
    for found in (one, two):
        during = [measured(c)[-1]["device"] for c in found["candidates"]]
        assert set(during) == {"lab://a", "lab://b"}
    numbers = [c["trial"] for c in two["candidates"]]
    assert numbers == sorted(numbers)


@pytest.mark.slow
def test_board_is_left_out_where_it_is_not_there_or_the_original_fails(lab: Cli, options: Callable[..., list[str]]) -> None:
    (lab.folder / "lab" / "a.gone").touch()
    (lab.folder / "lab" / "b.unfit").touch()
    done = lab(*options("a", "b", "c", trials=1))
    assert done.returncode == 0, done.stderr
    found = results(lab.folder / "run")
    notes = " ".join(found["notes"])
    assert "lab://a was left out, for it was unavailable when the search began" in notes
    assert "lab://b was left out, for the original fails on it: no such operator here" in notes
    assert found["baseline"]["latency"][0]["device"] == "lab://c"


def test_nothing_is_begun_where_no_board_is_there(lab: Cli, options: Callable[..., list[str]]) -> None:
    (lab.folder / "lab" / "a.gone").touch()
    done = lab(*options("a"))
    assert done.returncode == 4
    assert "lab://a does not answer" in done.stderr and "begin again" in done.stderr
    assert not (lab.folder / "run").exists()
    assert lab(*options("a"), "--dry-run").returncode == 4


@pytest.mark.slow
def test_interrupted_search_on_two_boards_keeps_what_is_complete_and_goes_on(lab: Cli, options: Callable[..., list[str]]) -> None:
    for board in ("a", "b"):
        (lab.folder / "lab" / f"{board}.slow").write_text("0.5")
    process = lab.start(*options("a", "b", trials=5))
    wait_for_candidates(process, lab.folder / "run", 2)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert gone(children)
    kept = {c["id"]: measured(c) for c in results(lab.folder / "run")["candidates"]}
    assert kept
    done = lab("resume", "run")
    assert done.returncode == 0, done.stderr
    after = {c["id"]: measured(c)[-1] for c in results(lab.folder / "run")["candidates"]}
    assert len(after) == 5
    assert all(after[name]["median_ms"] == latency[-1]["median_ms"] for name, latency in kept.items())
