"""One connection to a board: the keeper process that holds it, and the commands that share its login."""

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import psutil

from orchestrator.errors import DeviceUnavailable, EnvironmentFailure, InputError, JobFailed, OrchestratorError
from orchestrator.plugin.processes import AGENT, IMPORT_S, MARKER, GuardedProcess, pack
from orchestrator_devices import openssh
from orchestrator_devices.openssh import Address

HEARTBEAT_S = 10.0
CONNECT_S = 60.0  # a slow board needs a while for a login and for Python
ASK_S = 60.0
ALIVE_S = 15.0
END_S = 3.0
SLOWEST_BYTES_PER_S = 20_000
PREFIX = "orchestrator-"
LONGEST_BASE = 38  # of the parent of a socket's folder: the path of a socket has at most 100 characters
FOLDER = 'umask 077; f="${XDG_CACHE_HOME:-$HOME/.cache}/orchestrator-board"'
DIGEST = hashlib.sha256(AGENT.read_bytes()).hexdigest()
BROKEN = ("closed by remote host", "Broken pipe", "not responding", "Connection reset", "Connection to")


class DiskFull(EnvironmentFailure):
    """The board's disk has no space for a file."""


def _print(name: str, what: str) -> str:
    return f'printf "\\n{MARKER}{{\\"{name}\\": \\"{what}\\"}}\\n"'


def _launch(mode: str, settings: dict[str, Any], *, system: bool) -> str:
    """Return the script that starts the agent in the virtual environment's Python, or in the system's."""
    if system:
        python = "python3"
        old = 'python3 -c "import sys; sys.exit(sys.version_info < (3, 8))"'
        tests = f"command -v python3 >/dev/null 2>&1 || {{ {_print('missing', 'python3')}; exit 0; }}; "
        tests += f"{old} || {{ {_print('missing', 'Python 3.8 or newer')}; exit 0; }}"
    else:
        python = '"$f/venv/bin/python"'
        tests = f"[ -x {python} ] || {{ {_print('missing', 'venv')}; exit 0; }}"
    agent = f'[ -f "$f/agent.py" ] || {{ {_print("missing", "agent")}; exit 0; }}'
    return f'{FOLDER}; {tests}; {agent}; exec {python} -I -u "$f/agent.py" {mode} {pack(settings)}'


class BoardConnection:
    """A board, which is connected when it is first needed. Used by one thread at a time.

    Args:
        address: The board's address.
        system: True if the agent runs in the system's Python, because there may be no virtual environment yet.
    """

    def __init__(self, address: Address, *, system: bool = False) -> None:
        self.address, self._system = address, system
        self._token = uuid.uuid4().hex  # identifies what an earlier connection has left on the board
        self._folder: Path | None = None
        self._keeper: GuardedProcess | None = None
        self._locked = False
        self._was_connected = False
        self.folder = ""  # on the board, known when it is connected
        self._guards: set[GuardedProcess] = set()
        self._stop = threading.Event()

    @property
    def name(self) -> str:
        """The reference as given."""
        return self.address.reference

    # -- the connection --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Log in if necessary, and update the agent.

        Raises:
            InputError: The user must fix something: host key, login, name, setup.
            DeviceUnavailable: The board is out of reach.
        """
        if self._keeper is not None and self._keeper.alive:
            return
        self.disconnect(lost=True)
        self._folder = _short_folder()
        try:
            for _ in range(3):
                keeper = self._spawn("hold", {}, first=True)
                try:
                    reply = keeper.greeting(MARKER, timeout_s=CONNECT_S)
                except JobFailed as failure:
                    raise self._not_started(keeper, failure) from None
                except BaseException:
                    keeper.kill()
                    raise
                if reply.get("digest") == DIGEST:
                    break
                keeper.end(END_S)
                if reply.get("missing", "agent") != "agent":
                    raise self._missing(reply["missing"])
                self._upload_agent()
            else:
                raise InputError(f"board {self.name}: the agent on it cannot be replaced")
        except BaseException:
            self._forget_folder()
            raise
        self._keeper, self._was_connected, self.folder = keeper, True, str(reply["folder"])
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(keeper, self._stop), daemon=True).start()

    def lock(self) -> None:
        """Lock the board for this process.

        Raises:
            DeviceUnavailable: Another search holds it.
        """
        self.connect()
        if not self._locked:
            owner = f"{_user()}@{socket.gethostname()} (process {os.getpid()})"
            held_by = self.ask("lock", owner=owner)["held_by"]
            if held_by is not None:
                self.disconnect()
                raise DeviceUnavailable(f"board {self.name} is in use by {held_by}")
            self._locked = True

    def alive(self) -> bool:
        """Return True if the board still answers."""
        if self._keeper is None or not self._keeper.alive:
            return False
        try:
            self._keeper.request({"do": "ping"}, timeout_s=ALIVE_S)
        except JobFailed:
            return False
        return True

    def disconnect(self, *, lost: bool = False) -> None:
        """End all processes on the board, the one with the lock last. May be called twice.

        Args:
            lost: True if the connection is lost, so that waiting is useless.
        """
        self._stop.set()
        grace_s = 0.0 if lost else END_S
        for guard in tuple(self._guards):
            guard.end(grace_s)
        self._guards.clear()
        if self._keeper is not None:
            self._keeper.end(grace_s)
        self._keeper, self._locked = None, False
        self._forget_folder()

    def _forget_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def _beat(self, keeper: GuardedProcess, stop: threading.Event) -> None:
        """Send signs of life: the board ends silent processes, because a lost network closes no connection."""
        while not stop.wait(HEARTBEAT_S):
            for process in (keeper, *tuple(self._guards)):
                process.beat()

    def _command(self, script: str, *, first: bool) -> list[str]:
        if self._folder is None:
            raise DeviceUnavailable(f"board {self.name} is not connected")
        return openssh.command(self.address, script, socket=self._folder / "s", first=first)

    def _spawn(self, mode: str, settings: dict[str, Any], *, first: bool = False) -> GuardedProcess:
        script = _launch(mode, {**settings, "token": self._token}, system=self._system)
        return GuardedProcess(self._command(script, first=first), openssh.environment(), Path.cwd())

    def _not_started(self, process: GuardedProcess, failure: JobFailed) -> OrchestratorError:
        if failure.kind == "timeout":
            return DeviceUnavailable(f"board {self.name} does not answer: the login gave {failure}")
        return self._error_of(process.exit_code, process.last_words)

    def _error_of(self, code: int | None, output: str) -> OrchestratorError:
        """Return the error for a command that ended without a line of the agent."""
        last = (output.strip().splitlines() or ["no reason given"])[-1].strip()
        if code == openssh.REFUSED:
            error = openssh.error_of(self.address, output)
            # It worked before, so waiting may help: a rebooting board, for example, does not announce its name.
            return DeviceUnavailable(str(error)) if self._was_connected else error
        if self._was_connected:
            return DeviceUnavailable(f"board {self.name} cannot start the agent: {last}")
        fix = f"run `orchestrate devices setup {self.name}` to fix it"
        return InputError(f"board {self.name} cannot start the agent (exit code {code}: {last}); {fix}")

    def _missing(self, what: str) -> OrchestratorError:
        if what == "venv":
            return InputError(f"board {self.name} is not set up: run `orchestrate devices setup {self.name}`")
        if what == "space":
            return DiskFull(f"board {self.name}: the agent cannot be written there, most likely because its disk is full")
        return InputError(f"board {self.name} has no {what}: install it there first (on Debian: apt install python3)")

    # -- the keeper ------------------------------------------------------------------------------------------------------

    def ask(self, do: str, *, timeout_s: float = ASK_S, **request: Any) -> dict[str, Any]:
        """Send a request to the keeper, and return its result.

        Raises:
            DeviceUnavailable: It does not answer; the connection is closed then.
            EnvironmentFailure: The board cannot do it.
        """
        self.connect()
        keeper = self._keeper
        if keeper is None:
            raise DeviceUnavailable(f"board {self.name} is not connected")
        try:
            return keeper.request({"do": do, **request}, timeout_s=timeout_s)
        except JobFailed as failure:
            if keeper.alive:
                if failure.kind == "surroundings":
                    raise self.full(str(failure)) from None
                raise EnvironmentFailure(f"board {self.name}: {failure}") from None
            output = keeper.last_words
            self.disconnect(lost=True)
            raise self._lost(failure, output) from None

    def modules(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Import modules on the board: `{module: {"version": ...}}`, or `{"error": ..., "absent": ...}`."""
        return self.ask("modules", names=sorted(names), timeout_s=IMPORT_S + ASK_S)

    def full(self, why: str) -> DiskFull:
        """Return the error that names the board and its free space."""
        free, folder = None, "its folder"
        with contextlib.suppress(JobFailed):
            if self._keeper is not None and self._keeper.alive:
                facts = self._keeper.request({"do": "facts"}, timeout_s=ALIVE_S)
                free, folder = facts["free_disk_bytes"], facts["folder"]
        space = "" if free is None else f", {free / 1e6:.1f} MB free in {folder}"
        return DiskFull(f"the disk of board {self.name} is full{space}: {why}")

    # -- processes that watch a model ------------------------------------------------------------------------------------

    def guard(self, *, threads: int, memory_bytes: int | None) -> GuardedProcess:
        """Start a process on the board that serves one model; `end_guard` must end it.

        Raises:
            DeviceUnavailable: It could not be started.
        """
        process = self._spawn("guard", {"threads": threads, "memory_bytes": memory_bytes})
        try:
            reply = process.greeting(MARKER, timeout_s=CONNECT_S)
        except JobFailed as failure:
            raise self._not_started(process, failure) from None
        except BaseException:
            process.kill()
            raise
        if reply.get("digest") != DIGEST:
            process.kill()
            self.disconnect(lost=True)  # the next connection examines the folder
            raise DeviceUnavailable(f"board {self.name}: the agent there was changed or removed while it was in use")
        self._guards.add(process)
        return process

    def end_guard(self, process: GuardedProcess) -> None:
        """End a guard and the model's process on the board."""
        process.end(END_S)
        self._guards.discard(process)

    def judge(self, failure: JobFailed, process: GuardedProcess) -> OrchestratorError:
        """Return the error for a failed request to a guard: the candidate's failure, a lost board, or a full disk."""
        if process.alive:  # so the agent itself reports the failure
            return self.full(str(failure)) if failure.kind == "surroundings" else failure
        output = process.last_words
        belongs = process in self._guards  # False if it was ended with an earlier connection
        if not belongs or any(words in output for words in BROKEN) or not self.alive():
            if belongs:
                self.disconnect(lost=True)
            return self._lost(failure, output)
        if failure.kind == "timeout":
            return failure
        return JobFailed("crash", "the agent that watched the model on the board was ended from outside")

    def _lost(self, failure: JobFailed, output: str) -> DeviceUnavailable:
        """Return the error for a lost connection, with the client's last message."""
        lines = output.strip().splitlines()
        why = lines[-1].strip() if lines else str(failure) if failure.kind == "timeout" else "it gave no reason"
        return DeviceUnavailable(f"board {self.name}: the connection was lost ({why})")

    # -- files -----------------------------------------------------------------------------------------------------------

    def store(self, path: Path, *, folder: str, name: str, sha256: str, keep: Iterable[str] = ()) -> None:
        """Send a file to the board.

        Args:
            path: The file.
            folder: "files" or "wheels".
            name: Its name on the board.
            sha256: Its digest.
            keep: Names of stored files that must not be deleted to free space.

        Raises:
            DiskFull: There is no space, although older files were deleted.
            DeviceUnavailable: The connection was lost.
        """
        size = path.stat().st_size
        settings = {"folder": folder, "name": name, "size": size, "sha256": sha256, "keep": sorted(keep)}
        script = _launch("store", {**settings, "token": self._token}, system=self._system)
        with tempfile.TemporaryFile() as replies:
            reply = self._run(script, source=path, into=replies, timeout_s=ASK_S + size / SLOWEST_BYTES_PER_S)
        if reply.get("error") == "full":
            raise self.full(f"{path.name} needs {size / 1e6:.1f} MB")
        if "digest" not in reply or "error" in reply:
            raise DeviceUnavailable(f"board {self.name}: {path.name} did not arrive completely")

    def fetch(self, remote: str, local: Path) -> None:
        """Copy a file of the board's `work` folder.

        Raises:
            DeviceUnavailable: The connection was lost.
        """
        script = _launch("fetch", {"path": remote, "token": self._token}, system=self._system)
        with tempfile.TemporaryFile(dir=local.parent) as replies:
            reply = self._run(script, source=None, into=replies, timeout_s=6 * 3600)
            with local.open("wb") as file:
                shutil.copyfileobj(replies, file)
        if local.stat().st_size != reply.get("size"):
            local.unlink()
            raise DeviceUnavailable(f"board {self.name}: {local.name} did not arrive completely")

    def _upload_agent(self) -> None:
        part = '"$f/agent.py.$$"'
        script = f'{FOLDER}; mkdir -p "$f" && cat > {part} && mv -f {part} "$f/agent.py" && {_print("stored", "agent")} || '
        script += f"{{ rm -f {part}; {_print('missing', 'space')}; }}"
        with tempfile.TemporaryFile() as replies:
            reply = self._run(script, source=AGENT, into=replies, timeout_s=ASK_S)
        if "missing" in reply:
            raise self._missing(reply["missing"])

    def exists(self) -> bool:
        """Return True if the board has the folder; needs only a shell there, and leaves no connection open."""
        self._folder = self._folder or _short_folder()
        script = f'{FOLDER}; [ -d "$f" ] && {_print("folder", "yes")} || {_print("folder", "no")}'
        try:
            with tempfile.TemporaryFile() as replies:
                return bool(self._run(script, source=None, into=replies, timeout_s=CONNECT_S).get("folder") == "yes")
        finally:
            if self._keeper is None:
                self._forget_folder()

    def _run(self, script: str, *, source: Path | None, into: IO[bytes], timeout_s: float) -> dict[str, Any]:
        """Run a command to its end, and return its greeting; `into` is positioned behind it."""
        with (source or Path(os.devnull)).open("rb") as stdin:
            command = self._command(script, first=False)
            child = GuardedProcess(command, openssh.environment(), Path.cwd(), source=stdin, output=into)
            try:
                code = child.wait(timeout_s)
            except JobFailed:
                raise DeviceUnavailable(f"board {self.name} does not answer: no end within {timeout_s:.0f} s") from None
            finally:
                child.kill()
        into.seek(0)
        for line in into:
            if line.startswith(MARKER.encode()):
                reply: dict[str, Any] = json.loads(line[len(MARKER) :])
                return reply
        raise self._error_of(code, child.last_words)


def _short_folder() -> Path:
    """Create a private folder for the socket of the shared connection, whose path has at most 100 characters."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > LONGEST_BASE:
        base = Path("/tmp")  # noqa: S108 mkdtemp creates a private folder
    _sweep(base)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))


def _sweep(base: Path) -> None:
    """Remove the folders of killed processes."""
    for folder in base.glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError, ValueError):
            owner = int(folder.name.removeprefix(PREFIX).partition("-")[0])
            if folder.lstat().st_uid == os.getuid() and not psutil.pid_exists(owner) and not _answers(folder / "s"):
                shutil.rmtree(folder)


def _answers(path: Path) -> bool:
    """Return True if a process listens at a socket: process ids of other containers are meaningless here."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(1)
        try:
            one.connect(str(path))
        except OSError:
            return False
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
