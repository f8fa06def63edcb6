"""A board over ssh, and a job for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.plugin import Job
from orchestrator_devices.ssh import SshDevice
from tests.devices.sshd import Board, running_board
from tests.jobs import tiny_job


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board that is not set up."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with running_board(tmp_path / "board") as board:
        monkeypatch.setenv("ORCHESTRATE_SSH", board.client)
        yield board


@pytest.fixture
def board(bare: Board) -> Board:
    """A board that is set up."""
    bare.prepare()
    return bare


@pytest.fixture
def devices() -> Iterator[Callable[[str], SshDevice]]:
    """Makes devices that are released at the end."""
    made = []

    def make(reference: str) -> SshDevice:
        made.append(SshDevice().attach(reference))
        return made[-1]

    yield make
    for device in made:
        device.release()


@pytest.fixture
def device(board: Board, devices: Callable[[str], SshDevice]) -> SshDevice:
    """The board, connected and held."""
    made = devices(board.reference)
    made.board.lock()
    return made


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """The tiny network with 70 images."""
    return tiny_job(tmp_path)
