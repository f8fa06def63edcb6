"""`orchestrate devices`, against a real sshd."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.devices.sshd import Board, free_port, running_board


@pytest.fixture
def bare(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board that is not set up."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with running_board(tmp_path / "board") as board:
        monkeypatch.setenv("ORCHESTRATE_SSH", board.client)
        yield board


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


def test_check_prints_the_boards_facts(cli: Cli, bare: Board) -> None:
    bare.prepare()
    done = cli("devices", "check", bare.reference)
    assert done.returncode == 0, done.stderr
    for word in ("cpu ", "cores ", "memory ", "free disk ", "python ", "onnxruntime ", "in use by   nobody", "can be used"):
        assert word in done.stdout
    done = cli("devices", "check", bare.reference, "--json")
    said = json.loads(done.stdout)
    assert said["problem"] is None
    assert said["facts"]["versions"]["onnxruntime"]
    assert said["facts"]["in_use_by"] is None
    assert bare.wait_empty()


def test_check_ends_with_2_when_the_user_must_act_and_with_4_when_waiting_may_help(cli: Cli, bare: Board) -> None:
    done = cli("devices", "check", bare.reference, "--json")
    assert done.returncode == 2
    assert "is not set up" in json.loads(done.stdout)["problem"]
    assert "is not set up" in one_line(done.stderr)
    done = cli("devices", "check", f"ssh://127.0.0.1:{free_port()}")
    assert done.returncode == 4
    assert "Connection refused" in one_line(done.stderr)
    done = cli("devices", "check", "ssh://board/path")
    assert done.returncode == 2
    assert "no path" in one_line(done.stderr)


def test_check_works_for_this_host(cli: Cli) -> None:
    done = cli("devices", "check", "host")
    assert done.returncode == 0, done.stderr
    assert "host can be used with onnxruntime" in done.stdout


def test_host_needs_no_setting_up(cli: Cli) -> None:
    for action in ("setup", "remove"):
        done = cli("devices", action, "host")
        assert done.returncode == 2
        assert "only boards" in one_line(done.stderr)


def test_list_shows_the_host_what_plugins_bring_and_boards_that_were_set_up(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: Callable[..., None]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = tmp_path / "data" / "orchestrator"
    folder.mkdir(parents=True)
    (folder / "boards.json").write_text(json.dumps({"ssh://pi@kitchen": {"set_up": "2026-01-02", "versions": {"numpy": "2"}}}))
    installer(
        "drawer",
        "from orchestrator.plugin import Device, hookimpl\n\n"
        "class Drawer(Device):\n    'Boards in a drawer.'\n    scheme = 'drawer'\n"
        "    open = environment = cores = None\n\n"
        "@hookimpl\ndef orchestrator_devices():\n    return [Drawer()]\n",
    )
    rows = json.loads(cli("devices", "list", "--json").stdout)
    named = {row["device"]: row["what"] for row in rows}
    assert named["host"].startswith("this machine")
    assert named["ssh://pi@kitchen"] == "board, set up 2026-01-02: numpy 2"
    assert named["drawer"] == "Boards in a drawer."
    (folder / "boards.json").write_text("{")
    done = cli("devices", "list")
    assert done.returncode == 0
    assert "ssh://[user@]host[:port]" in done.stdout


def test_remove_deletes_the_folder_and_says_so(cli: Cli, bare: Board) -> None:
    bare.prepare()
    done = cli("devices", "remove", bare.reference)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{bare.reference}: deleted {bare.home}"
    assert not bare.home.exists()
    assert "nothing was set up" in cli("devices", "remove", bare.reference).stdout
    assert not bare.home.exists()


@pytest.mark.slow
def test_setup_copies_wheels_mends_what_is_broken_and_is_quick_again(cli: Cli, bare: Board) -> None:
    for step in ("first", "fix"):
        done = cli("devices", "setup", "--offline", bare.reference)
        assert done.returncode == 0, done.stderr
        assert "copying onnxruntime-" in done.stderr, step
        assert "is set up: numpy" in done.stdout
        assert not (bare.home / "wheels").exists()
        again = cli("devices", "setup", "--offline", bare.reference)
        assert "was set up already" in again.stdout
        assert "copying" not in again.stderr
        assert cli("devices", "check", bare.reference).returncode == 0
        next((bare.home / "venv" / "lib").glob("python*/site-packages/onnxruntime/__init__.py")).unlink()
    assert bare.reference in cli("devices", "list").stdout
    done = cli("devices", "setup", "--offline", "--version", "0.0.1", bare.reference)
    assert done.returncode == 2
    assert "there is no wheel of onnxruntime==0.0.1" in done.stderr.strip().splitlines()[-1]
    assert cli("devices", "remove", bare.reference).returncode == 0
    assert bare.reference not in cli("devices", "list").stdout


@pytest.mark.slow
def test_setup_is_told_when_the_disk_is_full(cli: Cli, bare: Board) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file system of its own can be mounted by root alone")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", bare.cache], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = cli("devices", "setup", "--offline", bare.reference)
        assert done.returncode == 4
        assert "is full" in done.stderr.strip().splitlines()[-1]
    finally:
        subprocess.run(["umount", "-l", bare.cache], check=False)
