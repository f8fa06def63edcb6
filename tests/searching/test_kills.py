"""kill -9 at random moments of a small search: nothing complete is lost, changed or made twice, and nothing is left behind."""

from pathlib import Path

import pytest

from tests.conftest import Project
from tests.searching.killing import Killed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_processes_are_killed_at_random_moments(tmp_path: Path, project: Project, seed: int) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    search = Killed(folder=folder, options=[*project.onnx, "--trials", "4"], seed=seed)
    search.until_done(3)
    assert search.found == []
    assert search.kills.total() > 0
