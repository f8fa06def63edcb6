"""Boards over ssh, against a real sshd."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from orchestrator.devices.agent_session import AGENT
from orchestrator.errors import DeviceUnavailable, EnvironmentFailure, InputError
from orchestrator.plugin import Job, JobFailed
from orchestrator.plugin.runtime import Runtime
from orchestrator_devices import ssh
from orchestrator_devices.host import HostDevice
from orchestrator_devices.openssh import Address
from orchestrator_devices.ssh import SshDevice
from tests.conftest import tiny_onnx
from tests.devices.sshd import Board, free_port, key, know
from tests.jobs import RUNTIME

Devices = Callable[[str], SshDevice]

STUBBORN = Path(__file__).with_name("stubborn.py").read_text()


def stubborn(job: Job, what: str, **changes: float) -> Job:
    return dataclasses.replace(job, load=STUBBORN.replace("BEHAVIOUR", what), imports=("numpy",), **changes)  # type: ignore[arg-type]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnecting gives up soon."""
    monkeypatch.setattr(ssh, "BACK_OFF_S", (0.1, 0.2))


# -- references -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "host", "user", "port"),
    [
        ("ssh://pi@board:2222", "board", "pi", 2222),
        ("ssh://board", "board", None, None),
        ("ssh://my-alias", "my-alias", None, None),
        ("ssh://pi@[fe80::1%eth0]:22", "fe80::1%eth0", "pi", 22),
        ("ssh://[::1]", "::1", None, None),
        ("ssh://10.0.0.7:22", "10.0.0.7", None, 22),
    ],
)
def test_reference_names_host_user_and_port(reference: str, host: str, user: str | None, port: int | None) -> None:
    found = Address.parse(reference)
    assert (found.host, found.user, found.port) == (host, user, port)


@pytest.mark.parametrize(
    "reference",
    [
        "ssh",
        "ssh:",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@board",
        "ssh://pi:secret@board",
        "ssh://board/path",
        "ssh://board:0",
        "ssh://board:99999",
        "ssh://board:x",
        "ssh://::1",
        "ssh://a;b",
        "ssh://$(x)",
        "ssh://@board",
        "ssh://[-x]",
    ],
)
def test_reference_that_cannot_be_read_is_one_clear_line(reference: str) -> None:
    with pytest.raises(InputError) as error:
        SshDevice().attach(reference)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


# -- all is well ------------------------------------------------------------------------------------------------------


def test_board_times_and_scores_like_the_host(device: SshDevice, board: Board, job: Job, tmp_path: Path) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    with device.open(job) as session:
        samples = session.time(seconds=0, runs=3, inner=2)
        assert len(samples) == 1
        assert min(samples[0]) > 0
        assert 0 < session.timer_resolution() < 1e-3
        state = session.state()
        assert state is not None
        assert state.cores >= 1
        assert len(session.cores()) == 1
        (path,) = session.predict(tmp_path / "there", batch=32)
        assert session.peak_memory_bytes() > 0
    with HostDevice().open(job) as session:
        (wanted,) = session.predict(tmp_path / "here", batch=32)
    np.testing.assert_allclose(np.load(path), np.load(wanted), rtol=1e-6)
    facts = device.environment()
    assert facts["versions"]["onnxruntime"] == RUNTIME.version()
    assert facts["free_disk_bytes"] > 0
    assert device.cores() == facts["cores"] >= 1
    assert not list((board.home / "work").iterdir())
    assert not board.agents("guard")
    device.release()
    device.release()
    assert board.wait_empty()


def test_models_and_inputs_are_sent_once(device: SshDevice, devices: Devices, board: Board, job: Job) -> None:
    with device.open(job):
        stored = {path: path.stat().st_ino for path in (board.home / "files").iterdir()}
    assert sorted(path.suffix for path in stored) == [".npy", ".onnx"]
    device.release()
    again = devices(board.reference)
    with again.open(job):
        assert {path: path.stat().st_ino for path in (board.home / "files").iterdir()} == stored


def test_alias_of_the_configuration_is_a_board(board: Board, devices: Devices, job: Job) -> None:
    with devices("ssh://alias").open(job) as session:
        assert session.time(seconds=0, runs=1)


def test_more_sessions_than_one_connection_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    from tests.devices.sshd import running_board

    with running_board(tmp_path / "narrow", "MaxSessions 2") as board:
        board.prepare()
        monkeypatch.setenv("ORCHESTRATE_SSH", board.client)
        device = SshDevice().attach(board.reference)
        sessions = [device.open(job) for _ in range(3)]
        assert all(session.time(seconds=0, runs=1) for session in sessions)
        for session in sessions:
            session.close()
        device.release()
        assert board.wait_empty()


def test_words_of_a_model_do_not_disturb(device: SshDevice, job: Job, tmp_path: Path) -> None:
    with device.open(stubborn(job, "chatter")) as session:
        assert session.time(seconds=0, runs=1)
        assert session.predict(tmp_path, batch=70)


def test_banner_on_stdout_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    from tests.devices.sshd import running_board

    # What a shell's start-up file prints, without an end of line.
    force = 'ForceCommand printf \'Welcome!\\n{"digest": 1}\\nno end\'; eval "$SSH_ORIGINAL_COMMAND"'
    with running_board(tmp_path / "chatty", force) as board:
        board.prepare()
        monkeypatch.setenv("ORCHESTRATE_SSH", board.client)
        device = SshDevice().attach(board.reference)
        device.check(RUNTIME)
        with device.open(job) as session:
            assert session.time(seconds=0, runs=1)
            (path,) = session.predict(tmp_path, batch=70)
        assert np.load(path).shape == (70, 3)
        device.release()


def test_agent_of_another_version_is_replaced(board: Board, devices: Devices) -> None:
    (board.home / "agent.py").write_text('print(\'orchestrator-board:{"digest": "old"}\')\n')
    devices(board.reference).check(RUNTIME)
    assert (board.home / "agent.py").read_bytes() == AGENT.read_bytes()


# -- what the user must fix ------------------------------------------------------------------------------------------


def refusal(device: SshDevice, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as error:
        device.check(RUNTIME)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refused_connection_is_a_device_that_may_come_back(board: Board, devices: Devices) -> None:
    device = devices(f"ssh://root@127.0.0.1:{free_port()}")
    assert "Connection refused" in refusal(device, DeviceUnavailable)


def test_other_host_key_is_told_with_the_command_that_mends_it(board: Board, devices: Devices, tmp_path: Path) -> None:
    know(board, key(tmp_path / "other"))
    message = refusal(devices(board.reference))
    assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in message
    (board.folder / "known_hosts").write_text("")
    message = refusal(devices(board.reference))
    assert "host key is not known yet" in message
    assert f"connect once with `ssh -p {board.port} " in message


def test_login_without_a_key_is_told(board: Board, devices: Devices) -> None:
    assert "Permission denied" in refusal(devices(f"ssh://nobody-of-that-name@127.0.0.1:{board.port}"))
    (board.folder / "authorized_keys").write_text("")
    assert "ssh-copy-id" in refusal(devices(board.reference))


def test_unknown_host_name_is_told(board: Board, devices: Devices) -> None:
    # Names under .invalid never resolve; without any network the answer may be that nothing can be asked.
    with pytest.raises((InputError, DeviceUnavailable), match=r"no-board\.invalid"):
        devices("ssh://no-board.invalid").check(RUNTIME)


def test_missing_client_is_told(board: Board, devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_SSH", "no-such-client")
    assert "no 'no-such-client' here" in refusal(devices(board.reference))


def test_board_that_is_not_set_up_is_told_with_the_command(bare: Board, devices: Devices) -> None:
    message = refusal(devices(bare.reference))
    assert f"orchestrate devices setup {bare.reference}" in message
    assert not bare.home.exists()


def test_missing_runtime_is_told_with_the_command(bare: Board, devices: Devices, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    bare.prepare(packages=str(tmp_path / "none"))
    assert "has no numpy" in refusal(devices(bare.reference))
    (tmp_path / "none" / "numpy.py").write_text("__version__ = '1'\n")
    message = refusal(devices(bare.reference))
    assert "has no onnxruntime" in message
    assert f"orchestrate devices setup {bare.reference}" in message
    (tmp_path / "none" / "onnxruntime.py").write_text("import os\nos.kill(os.getpid(), 4)\n")
    assert "SIGILL" in refusal(devices(bare.reference))


def test_other_runtime_names_its_package(board: Board, devices: Devices) -> None:
    class Other(type(RUNTIME)):  # type: ignore[misc]
        name = "other"
        imports = ("no_such_engine",)

    other: Runtime = Other()
    with pytest.raises(InputError, match=r"has no no_such_engine.*setup ssh://.* --runtime other"):
        devices(board.reference).check(other)


# -- what breaks in the middle ----------------------------------------------------------------------------------------


def test_broken_connection_is_the_devices_failure_and_the_next_open_connects_anew(
    device: SshDevice, board: Board, job: Job
) -> None:
    session = device.open(job)
    board.cut()
    with pytest.raises(DeviceUnavailable):
        session.time(seconds=0, runs=1)
    session.close()
    assert board.wait_empty()
    with device.open(job) as session:
        assert session.time(seconds=0, runs=1)


def test_connection_that_breaks_while_the_model_runs(device: SshDevice, board: Board, job: Job) -> None:
    import threading

    with device.open(stubborn(job, "hang")) as session:
        threading.Timer(0.5, board.cut).start()
        with pytest.raises(DeviceUnavailable):
            session.time(seconds=0, runs=1)
    assert board.wait_empty()


@pytest.mark.usefixtures("hasty")
def test_open_waits_for_a_board_that_comes_back_and_gives_up_on_one_that_does_not(
    device: SshDevice, board: Board, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    board.stop()
    began = time.monotonic()
    with pytest.raises(DeviceUnavailable, match="Connection refused"):
        device.open(job)
    assert time.monotonic() - began > 0.3
    monkeypatch.setattr(ssh, "BACK_OFF_S", (0.2,) * 50)
    timer = threading.Timer(0.6, board.start)
    timer.start()
    with device.open(job) as session:
        assert session.time(seconds=0, runs=1)
    timer.join()


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [("segfault", "crash", "died of SIGSEGV: the last words"), ("memory", "out-of-memory", "more than the limit of 400 MB")],
)
def test_model_that_breaks_is_the_candidates_failure(device: SshDevice, job: Job, what: str, kind: str, words: str) -> None:
    with device.open(stubborn(job, what, memory_bytes=400_000_000)) as session:
        with pytest.raises(JobFailed) as failure:
            session.time(seconds=0, runs=1)
        assert failure.value.kind == kind
        assert words in str(failure.value)
        with pytest.raises(JobFailed):
            session.time(seconds=0, runs=1)


def test_model_that_hangs_is_the_candidates_failure_and_the_board_goes_on(device: SshDevice, board: Board, job: Job) -> None:
    with device.open(stubborn(job, "hang")) as session:
        session._job = dataclasses.replace(job, timeout_s=1)  # loading may take longer
        with pytest.raises(JobFailed) as failure:
            session.time(seconds=0, runs=1)
        assert failure.value.kind == "timeout"
    assert len(board.agents("hold")) == 1
    with device.open(job) as other:
        assert other.time(seconds=0, runs=1)
        assert len(board.agents("answer")) == 1


def test_board_that_hangs_as_a_whole_is_the_devices_failure(
    device: SshDevice, board: Board, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_devices.board.ALIVE_S", 0.5)
    with device.open(stubborn(job, "hang")) as session:
        session._job = dataclasses.replace(job, timeout_s=0.5)
        for process in board.agents():
            process.suspend()
        with pytest.raises(DeviceUnavailable, match="no answer"):
            session.time(seconds=0, runs=1)
    with device.open(job) as session:  # what hung has been ended, and holds nothing
        assert session.time(seconds=0, runs=1)
        assert len(board.agents("answer")) == 1


@pytest.mark.usefixtures("hasty")
def test_agent_that_is_changed_in_the_middle_is_the_devices_failure(device: SshDevice, board: Board, job: Job) -> None:
    (board.home / "agent.py").write_text('print(\'orchestrator-board:{"digest": "new"}\')\n')
    with device.open(job) as session:  # after connecting anew
        assert session.time(seconds=0, runs=1)


def test_killed_model_process_is_the_candidates_failure(device: SshDevice, board: Board, job: Job) -> None:
    with device.open(job) as session:
        (process,) = board.agents("answer")
        process.kill()
        with pytest.raises(JobFailed) as failure:
            session.time(seconds=0, runs=1)
        assert failure.value.kind == "out-of-memory"
        assert "killed from outside" in str(failure.value)


def test_killed_guard_takes_its_model_along(device: SshDevice, board: Board, job: Job) -> None:
    with device.open(job) as session:
        (guard,), (model,) = board.agents("guard"), board.agents("answer")
        guard.kill()
        with pytest.raises(JobFailed) as failure:
            session.time(seconds=0, runs=1)
        assert failure.value.kind == "crash"
        assert "ended from outside" in str(failure.value)
        assert not psutil.wait_procs([model], timeout=5)[1]


def test_killed_keeper_is_the_devices_failure(device: SshDevice, board: Board, job: Job) -> None:
    with device.open(job) as session:
        (keeper,) = board.agents("hold")
        keeper.kill()
        with pytest.raises(DeviceUnavailable):
            session.predict(job.model.parent, batch=1)
    with device.open(job) as session:
        assert session.time(seconds=0, runs=1)


def test_model_that_the_runtime_cannot_load_fails_with_its_own_words(device: SshDevice, job: Job, tmp_path: Path) -> None:
    model = tiny_onnx()
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(JobFailed, match="NoSuchOperator") as failure:
        device.open(dataclasses.replace(job, model=tmp_path / "strange.onnx"))
    assert failure.value.kind == "error"


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(bare: Board) -> Iterator[Path]:
    """The board's folder lies on a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own can be mounted by root alone")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", bare.cache], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    bare.prepare()
    yield bare.cache
    subprocess.run(["umount", "-l", bare.cache], check=False)


def fill(disk: Path, *, leave: int = 0) -> None:
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize - leave
    (disk / "filler").write_bytes(b"0" * max(0, size))


def test_full_disk_is_told_with_the_board_and_its_free_space(disk: Path, bare: Board, devices: Devices, job: Job) -> None:
    device = devices(bare.reference)
    device.check(RUNTIME)
    fill(disk)
    with pytest.raises(EnvironmentFailure, match=rf"disk of board ssh://.*:{bare.port} is full, 0\.0 MB free in /") as error:
        device.open(job)
    assert not isinstance(error.value, DeviceUnavailable)
    device.release()
    assert "must be free" in refusal_full(devices(bare.reference))
    (disk / "filler").unlink()
    with device.open(job) as session:
        assert session.time(seconds=0, runs=1)


def refusal_full(device: SshDevice) -> str:
    with pytest.raises(EnvironmentFailure) as error:
        device.check(RUNTIME)
    return str(error.value)


def test_stored_files_make_room_when_the_disk_is_full(disk: Path, bare: Board, devices: Devices, job: Job) -> None:
    device = devices(bare.reference)
    for number in range(4):
        large = job.model.with_name(f"large{number}.npy")
        np.save(large, np.full((1, 900_000), number, np.float32))
        with device.open(stubborn(dataclasses.replace(job, inputs={**job.inputs, "large": large}), "fine")):
            pass
    stored = [path.stat().st_size for path in (disk / "orchestrator-board" / "files").iterdir()]
    assert 1 <= sum(size > 2_000_000 for size in stored) < 4


def test_outputs_that_do_not_fit_are_told_and_leave_nothing(disk: Path, bare: Board, devices: Devices, job: Job) -> None:
    device = devices(bare.reference)
    with device.open(stubborn(job, "large")) as session:
        with pytest.raises(EnvironmentFailure, match=r"disk of board .* is full"):
            session.predict(job.model.parent, batch=10)
        assert not list((bare.home / "work").iterdir())
        assert session.time(seconds=0, runs=1)


# -- one search at a time, and nothing left running ---------------------------------------------------------------------

HOLDER = Path(__file__).with_name("holder.py")


def test_lock_is_held_against_others_and_freed_when_its_owner_is_killed(board: Board, devices: Devices) -> None:
    with subprocess.Popen([sys.executable, str(HOLDER), board.reference], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            device = devices(board.reference)
            message = refusal(device, DeviceUnavailable)
            assert "is in use by" in message
            assert f"(process {other.pid}) since 2" in message
            assert device.status()["in_use_by"] is not None
            device.release()
            children = psutil.Process(other.pid).children(recursive=True)
        finally:
            other.send_signal(signal.SIGKILL)  # a failed assertion must not wait for it
    assert not psutil.wait_procs(children, timeout=10)[1], "no ssh client is left here"
    assert board.wait_empty(), "nothing is left there"
    device.check(RUNTIME)


def test_own_lost_connection_does_not_lock_the_search_out(device: SshDevice, board: Board, job: Job) -> None:
    """A network that vanishes closes nothing on the board: the keeper and a guard of the old connection are still there."""
    session = device.open(job)
    old = {process.pid for process in board.agents()}
    stopped = board.connections()
    for process in stopped:
        process.suspend()  # the board's end hears nothing of what follows
    for process in psutil.Process().children(recursive=True):
        if process.name() == "ssh":
            process.kill()
    with pytest.raises(DeviceUnavailable):
        session.time(seconds=0, runs=1)
    with device.open(job) as session:
        assert session.time(seconds=0, runs=1)
        assert not old & {process.pid for process in board.agents()}
    for process in stopped:
        process.resume()
