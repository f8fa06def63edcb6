"""The agent on a board by itself: it ends when nobody is there any more, keeps its store small, and hides nothing."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.devices.agent_session import AGENT

MARKER = "orchestrator-board:"


class Agent:
    """The agent's file in a folder of its own, with other constants."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.running = folder, folder / "agent.py", list[subprocess.Popen[bytes]]()
        folder.mkdir()
        self.file.write_text(AGENT.read_text())
        self.environment = {**os.environ, "ORCHESTRATE_BOARD_LOCK": str(folder / "lock")}

    def change(self, name: str, value: str) -> None:
        lines = self.file.read_text().splitlines()
        (k,) = [k for k, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[k] = f"{name} = {value}"
        self.file.write_text("\n".join(lines) + "\n")

    def start(self, mode: str, **settings: Any) -> subprocess.Popen[bytes]:
        packed = base64.urlsafe_b64encode(json.dumps({"token": "mine", **settings}).encode()).decode()
        command = [sys.executable, "-I", "-u", str(self.file), mode, packed]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment)
        self.running.append(started)
        return started

    def ask(self, process: subprocess.Popen[bytes], **request: Any) -> Any:
        assert process.stdin
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        return self.line(process)

    def line(self, process: subprocess.Popen[bytes]) -> Any:
        assert process.stdout
        for line in process.stdout:
            text = line.decode().removeprefix(MARKER).strip()
            if text:
                return json.loads(text)
        return None


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "board")
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def test_keeper_and_guard_end_when_they_hear_nothing_and_not_while_a_heart_beats(agent: Agent) -> None:
    agent.change("SILENCE_S", "3.0")
    keeper, guard = agent.start("hold"), agent.start("guard", threads=1, memory_bytes=None)
    for process in (keeper, guard):
        assert agent.line(process)["digest"] == hashlib.sha256(agent.file.read_bytes()).hexdigest()
    (model,) = psutil.Process(guard.pid).children()
    for _ in range(10):  # more than the silence in all
        time.sleep(0.35)
        for process in (keeper, guard):
            assert process.stdin
            process.stdin.write(b"\n")
            process.stdin.flush()
    assert keeper.poll() is guard.poll() is None
    assert keeper.wait(10) == guard.wait(10) == 0
    assert not psutil.wait_procs([model], timeout=5)[1]


def test_guard_takes_its_model_along_when_its_input_ends(agent: Agent) -> None:
    guard = agent.start("guard", threads=1, memory_bytes=None)
    agent.line(guard)
    (model,) = psutil.Process(guard.pid).children()
    assert guard.stdin
    guard.stdin.close()
    guard.stdin = None
    assert guard.wait(10) == 0
    assert not psutil.wait_procs([model], timeout=5)[1]


def test_lock_says_who_holds_it_and_may_be_opened_by_every_user(agent: Agent) -> None:
    one, two = agent.start("hold"), agent.start("hold", token="other")
    for process in (one, two):
        agent.line(process)
    assert agent.ask(one, do="lock", owner="ann@desk") == {"result": {"held_by": None}}
    assert agent.ask(one, do="lock", owner="ann@desk") == {"result": {"held_by": None}}
    assert agent.ask(two, do="lock", owner="bob@desk")["result"]["held_by"].startswith("ann@desk since 20")
    assert agent.ask(two, do="holder")["result"]["held_by"].startswith("ann@desk since 20")
    assert (agent.folder / "lock").stat().st_mode & 0o777 == 0o666
    one.kill()
    one.wait()
    assert agent.ask(two, do="lock", owner="bob@desk") == {"result": {"held_by": None}}


def test_lock_is_not_taken_through_a_link(agent: Agent) -> None:
    (agent.folder / "precious").write_text("kept")
    (agent.folder / "lock").symlink_to(agent.folder / "precious")
    keeper = agent.start("hold")
    agent.line(keeper)
    assert "PermissionError" in agent.ask(keeper, do="lock", owner="ann@desk")["error"]["message"]
    assert (agent.folder / "precious").read_text() == "kept"


def store(agent: Agent, name: str, data: bytes, *, sha256: str | None = None, keep: tuple[str, ...] = ()) -> Any:
    digest = sha256 or hashlib.sha256(data).hexdigest()
    process = agent.start("store", folder="files", name=name, size=len(data), sha256=digest, keep=keep)
    out, _ = process.communicate(data)
    return json.loads(out.decode().split(MARKER, 1)[1])


def test_store_keeps_what_was_used_last_and_what_is_in_use(agent: Agent) -> None:
    agent.change("STORE_BYTES", "2500")
    for age, name in enumerate(("a", "b")):
        assert "error" not in store(agent, name, name.encode() * 1000)
        os.utime(agent.folder / "files" / name, (1000 + age, 1000 + age))
    assert "error" not in store(agent, "c", b"c" * 1000, keep=("a",))
    assert sorted(path.name for path in (agent.folder / "files").iterdir()) == ["a", "c"]


def test_file_that_is_cut_short_or_changed_on_its_way_is_not_stored(agent: Agent) -> None:
    assert store(agent, "a", b"1234", sha256="0" * 64)["error"] == "broken"
    assert not list((agent.folder / "files").iterdir())


def test_nothing_but_outputs_is_given_away(agent: Agent) -> None:
    (agent.folder / "work").mkdir()
    (agent.folder / "work" / "link").symlink_to(agent.file)
    for path in ("/etc/passwd", str(agent.folder / "work" / ".." / "agent.py"), str(agent.folder / "work" / "link")):
        process = agent.start("fetch", path=path)
        out, _ = process.communicate()
        assert process.returncode != 0
        assert out == b""


def test_wheel_takes_the_place_of_another_version(tmp_path: Path) -> None:
    from orchestrator.devices.agent import unpack_wheel

    packages = tmp_path / "site-packages"
    packages.mkdir()
    for number in ("1", "2"):
        wheel = tmp_path / f"Some_Thing-{number}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"some_thing/only_in_{number}.py", "")
            archive.writestr(f"some_thing-{number}.dist-info/METADATA", "")
            archive.writestr(f"some_thing-{number}.data/platlib/some_thing_native.py", number)
        unpack_wheel(str(wheel), str(packages))
    found = sorted(str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file())
    assert found == ["some_thing-2.dist-info/METADATA", "some_thing/only_in_2.py", "some_thing_native.py"]
    assert (packages / "some_thing_native.py").read_text() == "2"


@pytest.mark.skipif(shutil.which("python3.8") is None, reason="there is no Python 3.8 here")
def test_agent_is_python_3_8() -> None:
    done = subprocess.run(["python3.8", "-m", "py_compile", AGENT], check=False, capture_output=True)
    assert done.returncode == 0 or b"pyenv" in done.stderr
