"""kill -9 at random moments of a small search: nothing complete is lost, changed or made twice, and nothing is left behind."""

from pathlib import Path

import pytest

from tests.conftest import Cli, Project
from tests.study.killing import Killed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_processes_are_killed_at_random_moments(tmp_path: Path, project: Project, seed: int) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    search = Killed(folder=folder, options=[*project.onnx, "--trials", "4"], seed=seed)
    search.until_done(3)
    assert search.found == []
    assert search.kills.total() > 0


@pytest.mark.slow
def test_nothing_is_lost_when_the_original_is_known_from_an_earlier_search(
    tmp_path: Path, cli: Cli, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs are then made on the way, beside a candidate's."""
    store, folder = tmp_path / "store", tmp_path / "killed"
    monkeypatch.setenv("ORCHESTRATE_STORE", str(store))
    assert cli("search", *project.onnx, "--trials", "1", "--output", "earlier").returncode == 0
    assert any(store.rglob("*")), "there is something that is known"
    folder.mkdir()
    search = Killed(folder=folder, options=[*project.onnx, "--trials", "4"], seed=3, store=store)
    search.until_done(3)
    assert search.found == []
    assert search.kills.total() > 0
