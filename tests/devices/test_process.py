"""A guarded child: whatever it does is an answer."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.devices import interrupt
from orchestrator.devices.agent_session import AGENT
from orchestrator.devices.process import GuardedProcess
from orchestrator.errors import Interrupted
from orchestrator.plugin import JobFailed
from orchestrator_devices import board

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture
def child(tmp_path: Path) -> Iterator[GuardedProcess]:
    process = GuardedProcess([sys.executable, str(CHILD)], dict(os.environ), tmp_path)
    yield process
    process.kill()


def ask(child: GuardedProcess, do: str, **limits: float) -> dict[str, object]:
    return child.request({"do": do}, timeout_s=limits.get("timeout_s", 30), memory_bytes=int(limits.get("memory", 10**9)))


def test_result_and_events_come_back(child: GuardedProcess) -> None:
    events: list[dict[str, object]] = []
    assert child.request({"do": "echo"}, timeout_s=30, on_event=events.append) == {"said": "echo"}
    assert events == [{"event": "progress", "what": "thinking", "done": 0.5}]


@pytest.mark.parametrize(
    ("do", "kind", "words"),
    [
        ("raise", "error", "no"),
        ("segfault", "crash", "SIGSEGV"),
        ("killed", "out-of-memory", "killed from outside"),
        ("exit", "crash", "exit code 1: the last words"),
    ],
)
def test_failure_says_its_kind(child: GuardedProcess, do: str, kind: str, words: str) -> None:
    with pytest.raises(JobFailed) as failure:
        ask(child, do)
    assert failure.value.kind == kind
    assert words in str(failure.value)
    assert child.alive is (do == "raise")


def test_child_is_killed_when_it_hangs(child: GuardedProcess) -> None:
    with pytest.raises(JobFailed) as failure:
        ask(child, "hang", timeout_s=0.5)
    assert failure.value.kind == "timeout"
    assert not child.alive


def test_child_is_killed_when_it_outgrows_its_memory(child: GuardedProcess) -> None:
    with pytest.raises(JobFailed) as failure:
        ask(child, "memory", memory=300_000_000)
    assert failure.value.kind == "out-of-memory"
    assert "more than the limit of 300 MB" in str(failure.value)
    assert not child.alive


def test_grandchildren_go_too(child: GuardedProcess) -> None:
    grandchild = psutil.Process(int(ask(child, "family")["pid"]))  # type: ignore[call-overload]
    child.kill()
    assert not psutil.wait_procs([grandchild], timeout=10)[1]


def test_request_after_death_is_a_failure_and_not_an_exception(child: GuardedProcess) -> None:
    child.kill()
    with pytest.raises(JobFailed):
        ask(child, "echo")
    child.kill()


def test_waiting_ends_when_the_user_interrupts(child: GuardedProcess) -> None:
    import signal
    import threading

    with interrupt.heard():
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Interrupted):
            ask(child, "hang")
    interrupt.check()  # forgotten when the run is over


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {str(AGENT)!r}], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    import subprocess

    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    agent = psutil.Process(int(process.stdout.readline()))
    time.sleep(1.0)  # the agent asks the kernel for this when it starts
    process.kill()
    process.communicate()
    assert not psutil.wait_procs([agent], timeout=10)[1]


def test_folders_of_killed_processes_are_swept_and_those_of_others_are_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"orchestrator-{ended.pid}-abc", f"orchestrator-{os.getpid()}-abc", "orchestrator-notes"):
        (tmp_path / name).mkdir()
    board._sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"orchestrator-{os.getpid()}-abc", "orchestrator-notes"}


def test_folder_stays_while_somebody_answers_in_it(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / f"orchestrator-{ended.pid}-abc"  # the id may be another container's
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen()
        board._sweep(tmp_path)
        assert folder.is_dir()
    board._sweep(tmp_path)
    assert not folder.exists()
