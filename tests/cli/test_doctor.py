"""`orchestrate doctor`: what works, what does not and why, also where libraries are missing or broken."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.diagnosis import libraries, machine
from orchestrator.hardware import cgroup
from tests.conftest import Cli


def by_name(said: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in said["findings"] if found["section"] == section}


def test_broken_plugins_and_runtimes_are_named_and_a_search_would_run(cli: Cli, installer: Callable[..., None]) -> None:
    installer("cannot-import", "import a_module_that_is_not_there")
    installer("broken-runtimes")
    done = cli("doctor", "--json", "--target", "raspberry-pi")
    said = json.loads(done.stdout)
    assert done.returncode == 0, [found for found in said["findings"] if found["needed"] and found["state"] != "ok"]
    assert said["works"]
    plugin = by_name(said, "plugins")["cannot-import"]
    assert plugin["state"] == "broken"
    assert "cannot-import 1.0 cannot be used: ModuleNotFoundError" in plugin["text"]
    assert "--without-plugin cannot-import" in plugin["fix"]
    runtimes = by_name(said, "runtimes")
    assert runtimes["onnxruntime"]["state"] == "ok" and runtimes["onnxruntime"]["needed"]
    assert (runtimes["absent"]["state"], runtimes["absent"]["fix"]) == ("missing", "pip install absent")
    assert runtimes["wrong"]["state"] == "broken" and "computes [[-0.5, 1.0, 3.5]]" in runtimes["wrong"]["text"]
    assert runtimes["wrong"]["fix"].endswith("--force-reinstall onnxruntime"), "what it imports, not what it is called"
    assert runtimes["crashing"]["state"] == "broken" and "cannot run a model" in runtimes["crashing"]["text"]
    assert by_name(said, "devices")["qemu"]["state"] == "missing"  # the tests name an empty place for it
    target = by_name(said, "targets")["raspberry-pi"]
    assert target["state"] == "warning" and "only estimated" in target["text"]
    assert not list(cli.folder.iterdir())


def without(folder: Path, missing: str) -> Path:
    """The Python of an environment that has everything that this one has, but for one distribution."""
    venv.create(folder, symlinks=True)
    (inside,) = (folder / "lib").glob("python*/site-packages")
    for packages in {Path(path) for path in sys.path if path.endswith("site-packages")}:
        for entry in packages.iterdir():
            name = entry.name.lower()
            if name != missing and not name.startswith(f"{missing}-") and not (inside / entry.name).exists():
                (inside / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def test_missing_library_is_named_with_its_command_and_ends_with_1(tmp_path: Path) -> None:
    python = without(tmp_path / "environment", "torch")
    done = subprocess.run([python, "-m", "orchestrator", "doctor"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "-> pip install 'torch>=2.9'" in done.stdout
    assert "A search for host would not run:\n  torch: is not installed" in done.stdout
    assert "torch-pruning: " in done.stdout  # it cannot be imported without torch


@pytest.mark.slow
def test_damaged_library_ends_with_1_and_the_rest_is_looked_at(cli: Cli) -> None:
    (cli.packages / "onnx.py").write_text("import ctypes\nctypes.string_at(0)\n")
    done = cli("doctor", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert not said["works"]
    onnx = by_name(said, "libraries")["onnx"]
    assert onnx["state"] == "broken" and "cannot be imported: the process ended with -" in onnx["text"]
    assert by_name(said, "libraries")["optuna"]["state"] == "ok"
    assert "because onnx" in by_name(said, "runtimes")["runtimes"]["text"]
    assert by_name(said, "machine")["cores"]["state"] == "ok"


def test_what_a_library_says_when_it_cannot_be_imported_is_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raises.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    (tmp_path / "leaves.py").write_text("import os, sys; print('noise'); sys.stdout.flush(); os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert libraries.imported(["raises", "leaves", "json"]) == {
        "raises": "OSError: libcudart.so.13: cannot open shared object file",
        "leaves": "the process ended with 7",
        "json": None,
    }


def test_limits_of_a_container_and_settings_of_threads_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "membership").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("25000 100000\n")
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    facts = {"cpu": "a CPU", "machine": "x", "system": "y", "cores": 4, "governor": "powersave"}
    monkeypatch.setattr(machine, "machine_facts", lambda: facts)
    monkeypatch.chdir(tmp_path)
    found = {finding.name: finding for finding in machine.machine()}
    assert found["cpu limit"].state == "warning" and "0.25 of 4 cores" in found["cpu limit"].text
    assert found["memory limit"].state == "warning" and "1.1 GB" in found["memory limit"].text
    assert found["governor"].fix.endswith("performance")
    assert found["OMP_NUM_THREADS"].fix == "unset OMP_NUM_THREADS"
    assert found["store"].text.startswith("off")


def test_folder_that_cannot_be_written_stops_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access  # permissions would not stop root, whom the tests may run as
    monkeypatch.setattr(machine.os, "access", lambda path, mode: path != tmp_path and allowed(path, mode))
    monkeypatch.chdir(tmp_path)
    found = {finding.name: finding for finding in machine.machine()}
    assert (found["runs"].state, found["runs"].needed) == ("broken", True)


def test_unknown_target_is_an_obstacle_with_the_nearest_name(cli: Cli) -> None:
    from orchestrator.diagnosis import targets

    found = list(targets.targets("rasberry-pi-4"))
    assert [finding.state for finding in found if finding.needed] == ["broken", "broken"]
    assert "did you mean raspberry-pi-4" in found[-1].text
