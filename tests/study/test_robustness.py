"""Nothing stops a search, and nothing complete is lost."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Cli, Project

SEARCH = """
schema = 1
name = "short-fuse"
title = "a search whose candidates may take 8 seconds and 1.5 GB"
sampler = "random"
trials = 9
candidate_timeout = "8s"
memory = "1500MB"
"""


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.slow
def test_search_goes_on_when_candidates_raise_crash_hang_or_eat_memory(rogue: Cli, project: Project) -> None:
    (rogue.folder / "fuse.toml").write_text(SEARCH)
    methods = ["exception", "segfault", "exit", "hang", "memory", "nan", "unloadable"]
    chosen = [option for name in methods for option in ("--method", f"rogue-{name}")]
    done = rogue("search", *project.onnx, *chosen, "--search", "fuse.toml", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(rogue.folder / "run")
    kinds = {c["recipe"][0]["method"]: c["failure"] for c in found["candidates"]}
    assert all(c["state"] == "failed" for c in found["candidates"])
    assert {name: failure["kind"] for name, failure in kinds.items()} == {
        "rogue-exception": "error",
        "rogue-segfault": "crash",
        "rogue-exit": "crash",
        "rogue-hang": "timeout",
        "rogue-memory": "out-of-memory",
        "rogue-nan": "error",
        "rogue-unloadable": "error",
    }
    assert kinds["rogue-exception"]["message"] == "RuntimeError: first line"
    assert kinds["rogue-segfault"]["step"] == "rogue-segfault"
    assert "SIGSEGV" in kinds["rogue-segfault"]["message"]
    assert "NaN" in kinds["rogue-nan"]["message"]
    assert found["search"]["ended"] == "every recipe of the search space was tried"
    assert (rogue.folder / "run" / "report.html").is_file()


@pytest.mark.slow
def test_recipe_is_rejected_when_a_plugin_objects(rogue: Cli, project: Project) -> None:
    done = rogue(
        "search", *project.onnx, "--method", "rogue-refusal", "--method", "static-int8", "--trials", "4", "--output", "run"
    )
    assert done.returncode == 0, done.stderr
    rejected = [c for c in results(rogue.folder / "run")["candidates"] if c["state"] == "rejected"]
    assert rejected
    assert all(c["failure"] == {"kind": "limit", "step": "recipe", "message": "the law forbids it"} for c in rejected)


def wait_for_candidates(process: "subprocess.Popen[str]", run: Path, count: int) -> None:
    """Until that many candidates are kept; fails when the search ends before."""
    deadline = time.monotonic() + 600
    while len(list((run / "work" / "candidates").glob("*.json"))) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the search ended early: {process.communicate()}")
        time.sleep(0.05)


def wait_for_agent(process: "subprocess.Popen[str]") -> None:
    """Until a model is loaded on this machine: what listens for Ctrl-C does so by then."""
    deadline = time.monotonic() + 300
    while not any("agent.py" in word for child in descendants(process.pid) for word in _words(child)):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"nothing was measured: {process.communicate()}")
        time.sleep(0.05)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=15)[1]


@pytest.mark.slow
def test_nothing_complete_is_lost_when_the_search_is_killed_and_resumed(cli: Cli, project: Project) -> None:
    arguments = ["search", *project.onnx, "--trials", "6", "--seed", "3", "--output", "run"]
    process = cli.start(*arguments)
    run = cli.folder / "run"
    for moment in (2, 4):  # the baseline counts
        wait_for_candidates(process, run, moment)
        children = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert gone(children), "a killed search leaves no process behind"
        kept = {p.name: p.read_text() for p in (run / "work" / "candidates").glob("*.json")}
        assert len(kept) >= moment
        process = cli.start("resume", "run")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    found = results(run)
    assert len(found["candidates"]) == 6
    assert len({c["trial"] for c in found["candidates"]}) == 6
    identifiers = [c["id"] for c in found["candidates"]]
    assert len(set(identifiers)) == 6
    for name in kept:
        assert name.removesuffix(".json") in {*identifiers, "baseline"}
        now, before = (json.loads(text) for text in ((run / "work" / "candidates" / name).read_text(), kept[name]))
        assert (now["latency"], now["seconds"], now["trial"]) == (before["latency"], before["seconds"], before["trial"])


KILLED = Path(__file__).with_name("killed_search.py")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_search_resumes_when_it_was_killed_just_before_or_after_the_original_was_kept(
    cli: Cli, project: Project, moment: str
) -> None:
    command = [cli.python, str(KILLED), moment, project.onnx[1], project.onnx[3]]
    done = subprocess.run(command, cwd=cli.folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == -signal.SIGKILL, done.stderr
    original = cli.folder / "run" / "work" / "candidates" / "baseline.json"
    assert original.is_file() == (moment == "after")
    kept = json.loads(original.read_text())["latency"] if original.is_file() else None
    resumed = cli("resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert len(results(cli.folder / "run")["candidates"]) == 2
    if kept is not None:
        assert json.loads(original.read_text())["latency"] == kept, "it was measured again"


@pytest.mark.slow
def test_search_ends_with_130_and_can_go_on_when_interrupted(cli: Cli, project: Project) -> None:
    process = cli.start("search", *project.onnx, "--trials", "5", "--output", "run")
    wait_for_candidates(process, cli.folder / "run", 3)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("orchestrate: interrupted; continue with: orchestrate resume ")
    assert gone(children)
    assert results(cli.folder / "run")["search"]["ended"] == "it was interrupted"
    done = cli("resume", "run")
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert len(found["candidates"]) == 5
    assert found["baseline"]["quality"]["test"] is not None


@pytest.mark.slow
def test_resume_goes_on_when_the_budget_is_raised(cli: Cli, project: Project) -> None:
    assert cli("search", *project.onnx, "--trials", "2", "--output", "run").returncode == 0
    before = {c["id"] for c in results(cli.folder / "run")["candidates"]}
    done = cli("resume", "run", "--trials", "4")
    assert done.returncode == 0, done.stderr
    after = {c["id"] for c in results(cli.folder / "run")["candidates"]}
    assert len(after) == 4
    assert before < after


@pytest.mark.slow
def test_second_process_is_refused_when_a_run_is_in_use(cli: Cli, project: Project) -> None:
    process = cli.start("search", *project.onnx, "--trials", "30", "--output", "run")
    wait_for_candidates(process, cli.folder / "run", 2)
    second = cli("resume", "run")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert second.returncode == 4
    assert f"in use by process {process.pid}" in second.stderr


@pytest.mark.slow
def test_resume_refuses_when_the_model_has_changed(cli: Cli, project: Project) -> None:
    assert cli("search", *project.onnx, "--trials", "1", "--output", "run").returncode == 0
    import onnx

    from tests.conftest import tiny_onnx

    onnx.save(tiny_onnx(kernel=5), project.folder / "model.onnx")
    done = cli("resume", "run", "--trials", "2")
    assert done.returncode == 2
    assert "have changed since the run began" in done.stderr


@pytest.mark.slow
def test_resume_refuses_when_the_plugins_are_others(cli: Cli, project: Project) -> None:
    assert cli("search", *project.onnx, "--trials", "1", "--output", "run").returncode == 0
    state = cli.folder / "run" / "work" / "run.json"
    state.write_text(state.read_text().replace('"quantization": "model-orchestrator', '"quantization": "model-orchestrator-old'))
    assert "model-orchestrator-old" in state.read_text()
    done = cli("resume", "run", "--trials", "2")
    assert done.returncode == 2
    assert "quantization: model-orchestrator-old" in done.stderr


@pytest.mark.slow
def test_study_opens_when_a_killed_process_left_half_a_line(cli: Cli, project: Project) -> None:
    assert cli("search", *project.onnx, "--trials", "2", "--output", "run").returncode == 0
    with (cli.folder / "run" / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 5, "worker_id"')
    (cli.folder / "run" / "study.journal.lock").symlink_to("study.journal")
    done = cli("resume", "run", "--trials", "3")
    assert done.returncode == 0, done.stderr
    assert len(results(cli.folder / "run")["candidates"]) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own can be mounted by root alone")
@pytest.mark.slow
def test_run_ends_with_4_and_goes_on_when_the_disk_was_full(cli: Cli, project: Project) -> None:
    disk = cli.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        process = cli.start("search", *project.onnx, "--trials", "30", "--output", "disk/run")
        wait_for_candidates(process, disk / "run", 2)
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"0" * 4096)
            except OSError:
                pass
        out, err = process.communicate(timeout=120)
        assert process.returncode == 4, err
        assert "No space left on device" in err.strip().splitlines()[-1]
        assert "orchestrate resume" in err
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        done = cli("resume", "disk/run", "--trials", "3")
        assert done.returncode == 0, done.stderr
        assert len(results(disk / "run")["candidates"]) >= 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
def test_same_recipes_are_asked_when_seed_and_trials_are_the_same(cli: Cli, project: Project) -> None:
    asked = []
    for name in ("one", "two"):
        arguments = ["--target", "raspberry-pi", "--trials", "6", "--seed", "11", "--output", name]
        done = cli("search", "--model", project.ref("model:net"), "--data", project.ref("data:splits"), *arguments)
        assert done.returncode == 0, done.stderr
        asked.append([c["recipe"] for c in results(cli.folder / name)["candidates"]])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 6
