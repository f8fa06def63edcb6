"""The main job on a real board behind a real sshd: searched, measured and compared there."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.conftest import Cli, Project, tiny_onnx
from tests.devices.sshd import Board, running_board
from tests.study.test_robustness import results, wait_for_candidates


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board that is set up."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with running_board(tmp_path / "board") as made:
        made.prepare()
        monkeypatch.setenv("ORCHESTRATE_SSH", made.client)
        yield made


def search(project: Project, board: Board, trials: int = 3) -> list[str]:
    device = ["--target", "raspberry-pi", "--device", board.reference]
    return ["search", *project.onnx, *device, "--trials", str(trials), "--max-drop", "100%", "--output", "run"]


@pytest.mark.slow
def test_search_times_and_scores_on_the_board_and_leaves_nothing_running(cli: Cli, project: Project, board: Board) -> None:
    done = cli(*search(project, board, trials=2))
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert found["target"]["device"] == board.reference
    for candidate in (found["baseline"], *found["candidates"]):
        assert candidate["state"] == "complete", candidate["failure"]
        first = candidate["latency"][0]
        assert (first["evidence"], first["device"]) == ("measured-on-target", board.reference)
    assert board.wait_empty()
    assert not list((board.home / "work").glob("*")), "outputs do not stay on the board"
    models = [path for path in (board.home / "files").iterdir() if path.suffix == ".onnx"]
    assert len(models) == len({c["artifact"]["digest"] for c in (found["baseline"], *found["candidates"])}), "each was sent once"


@pytest.mark.slow
def test_search_goes_on_after_the_connection_was_cut(cli: Cli, project: Project, board: Board) -> None:
    process = cli.start(*search(project, board))
    wait_for_candidates(process, cli.folder / "run", 1)
    board.cut()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert [c["state"] for c in results(cli.folder / "run")["candidates"]] == ["complete"] * 3


@pytest.mark.slow
def test_killed_search_leaves_nothing_on_the_board_and_resumes(cli: Cli, project: Project, board: Board) -> None:
    process = cli.start(*search(project, board))
    wait_for_candidates(process, cli.folder / "run", 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert board.wait_empty(), "its processes on the board end with it"
    done = cli("resume", "run")
    assert done.returncode == 0, done.stderr
    assert len(results(cli.folder / "run")["candidates"]) == 3


def test_comparison_on_the_board_needs_no_profile(cli: Cli, board: Board, tmp_path: Path) -> None:
    onnx.save(tiny_onnx(), tmp_path / "a.onnx")
    onnx.save(tiny_onnx(kernel=41), tmp_path / "b.onnx")
    more = ["--device", board.reference, "--threads", "1", "--max-seconds", "4", "--json"]
    done = cli("compare", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "slower"
    assert found["a"]["evidence"] == "measured-on-target"
    assert found["a"]["device"] == board.reference
    assert found["a"]["environment"]["versions"]["onnxruntime"] == found["a"]["environment"]["runtime_version"]


def test_model_that_the_boards_runtime_cannot_load_names_the_operator(cli: Cli, board: Board, tmp_path: Path) -> None:
    broken = tiny_onnx()
    broken.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(broken, tmp_path / "broken.onnx")
    done = cli("measure", str(tmp_path / "broken.onnx"), "--device", board.reference)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"cannot be run by onnxruntime on {board.reference}" in line and "NoSuchOperator" in line


def test_search_on_a_board_asks_for_its_profile(cli: Cli, project: Project, board: Board) -> None:
    done = cli("search", *project.onnx, "--device", board.reference, "--trials", "1")
    assert done.returncode == 2
    assert "target 'host' is this machine" in done.stderr and "--target" in done.stderr
