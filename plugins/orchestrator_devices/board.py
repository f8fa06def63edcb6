"""One connection to a board: the keeper that holds it, and the commands that share its login."""

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
LONGEST_BASE = 38  # of the folder that a socket's folder lies in: the socket's own path may have 100 characters at most
FOLDER = 'umask 077; f="${XDG_CACHE_HOME:-$HOME/.cache}/orchestrator-board"'
DIGEST = hashlib.sha256(AGENT.read_bytes()).hexdigest()
BROKEN = ("closed by remote host", "Broken pipe", "not responding", "Connection reset", "Connection to")


class DiskFull(EnvironmentFailure):
    """The board's disk has no room for what must be there."""


def _say(name: str, what: str) -> str:
    return f'printf "\\n{MARKER}{{\\"{name}\\": \\"{what}\\"}}\\n"'


def _launch(mode: str, settings: dict[str, Any], *, system: bool) -> str:
    """The script that starts the agent, in the virtual environment's Python or in the system's."""
    if system:
        python = "python3"
        old = 'python3 -c "import sys; sys.exit(sys.version_info < (3, 8))"'
        tests = f"command -v python3 >/dev/null 2>&1 || {{ {_say('missing', 'python3')}; exit 0; }}; "
        tests += f"{old} || {{ {_say('missing', 'Python 3.8 or newer')}; exit 0; }}"
    else:
        python = '"$f/venv/bin/python"'
        tests = f"[ -x {python} ] || {{ {_say('missing', 'venv')}; exit 0; }}"
    agent = f'[ -f "$f/agent.py" ] || {{ {_say("missing", "agent")}; exit 0; }}'
    return f'{FOLDER}; {tests}; {agent}; exec {python} -I -u "$f/agent.py" {mode} {pack(settings)}'


class BoardConnection:
    """A board that is connected when it is first needed. One thread uses it at a time.

    Args:
        address: Where it is.
        system: Whether the agent runs in the system's Python, because the virtual environment may not be there yet.
    """

    def __init__(self, address: Address, *, system: bool = False) -> None:
        self.address, self._system = address, system
        self._token = uuid.uuid4().hex  # a new connection knows by it what an old one has left on the board
        self._folder: Path | None = None
        self._keeper: GuardedProcess | None = None
        self._locked = False
        self._was_connected = False
        self.folder = ""  # on the board, known when it is connected
        self._guards: set[GuardedProcess] = set()
        self._stop = threading.Event()

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.address.reference

    # -- the connection --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Log in, unless that has been done; bring the agent up to date.

        Raises:
            InputError: what the user must fix: host key, login, name, set-up.
            DeviceUnavailable: out of reach.
        """
        if self._keeper is not None and self._keeper.alive:
            return
        self.disconnect(lost=True)
        self._folder = _short_folder()
        try:
            for _ in range(3):
                keeper = self._spawn("hold", {}, first=True)
                try:
                    said = keeper.greeting(MARKER, timeout_s=CONNECT_S)
                except JobFailed as failure:
                    raise self._not_started(keeper, failure) from None
                except BaseException:
                    keeper.kill()
                    raise
                if said.get("digest") == DIGEST:
                    break
                keeper.end(END_S)
                if said.get("missing", "agent") != "agent":
                    raise self._missing(said["missing"])
                self._upload_agent()
            else:
                raise InputError(f"board {self.name}: the agent on it cannot be replaced")
        except BaseException:
            self._forget_folder()
            raise
        self._keeper, self._was_connected, self.folder = keeper, True, str(said["folder"])
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(keeper, self._stop), daemon=True).start()

    def lock(self) -> None:
        """Take the board for this process.

        Raises:
            DeviceUnavailable: another search has it.
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
        """Whether the board still answers."""
        if self._keeper is None or not self._keeper.alive:
            return False
        try:
            self._keeper.request({"do": "ping"}, timeout_s=ALIVE_S)
        except JobFailed:
            return False
        return True

    def disconnect(self, *, lost: bool = False) -> None:
        """End all that runs on the board for this process, its lock last. May be called twice.

        Args:
            lost: There is nobody to wait for.
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
        """The board ends what hears nothing for a while: a network that vanishes closes no connection."""
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
        return self._complaint(process.exit_code, process.last_words)

    def _complaint(self, code: int | None, said: str) -> OrchestratorError:
        """What it means that a command ended without a word of the agent's."""
        last = (said.strip().splitlines() or ["no reason given"])[-1].strip()
        if code == openssh.REFUSED:
            found = openssh.complaint(self.address, said)
            # It worked before: a name that a rebooting board does not announce, say, will be back.
            return DeviceUnavailable(str(found)) if self._was_connected else found
        if self._was_connected:
            return DeviceUnavailable(f"board {self.name} cannot start the agent: {last}")
        how = f"run `orchestrate devices setup {self.name}` to fix it"
        return InputError(f"board {self.name} cannot start the agent (exit code {code}: {last}); {how}")

    def _missing(self, what: str) -> OrchestratorError:
        if what == "venv":
            return InputError(f"board {self.name} is not set up: run `orchestrate devices setup {self.name}`")
        if what == "space":
            return DiskFull(f"board {self.name}: the agent cannot be written there, most likely because its disk is full")
        return InputError(f"board {self.name} has no {what}: install it there first (on Debian: apt install python3)")

    # -- the keeper ------------------------------------------------------------------------------------------------------

    def ask(self, do: str, *, timeout_s: float = ASK_S, **request: Any) -> dict[str, Any]:
        """What the keeper says.

        Raises:
            DeviceUnavailable: it says nothing any more; nothing is connected then.
            EnvironmentFailure: the board cannot do it.
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
            said = keeper.last_words
            self.disconnect(lost=True)
            raise self._lost(failure, said) from None

    def modules(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """`{module: {"version": ...}}` of what the virtual environment can import, else `{"error": ..., "absent": ...}`."""
        return self.ask("modules", names=sorted(names), timeout_s=IMPORT_S + ASK_S)

    def full(self, why: str) -> DiskFull:
        """The error that names the board and its free space."""
        free, folder = None, "its folder"
        with contextlib.suppress(JobFailed):
            if self._keeper is not None and self._keeper.alive:
                facts = self._keeper.request({"do": "facts"}, timeout_s=ALIVE_S)
                free, folder = facts["free_disk_bytes"], facts["folder"]
        room = "" if free is None else f", {free / 1e6:.1f} MB free in {folder}"
        return DiskFull(f"the disk of board {self.name} is full{room}: {why}")

    # -- processes that watch a model ------------------------------------------------------------------------------------

    def guard(self, *, threads: int, memory_bytes: int | None) -> GuardedProcess:
        """A process on the board that answers about one model; give it to `end_guard` after all.

        Raises:
            DeviceUnavailable: it could not be started.
        """
        process = self._spawn("guard", {"threads": threads, "memory_bytes": memory_bytes})
        try:
            said = process.greeting(MARKER, timeout_s=CONNECT_S)
        except JobFailed as failure:
            raise self._not_started(process, failure) from None
        except BaseException:
            process.kill()
            raise
        if said.get("digest") != DIGEST:
            process.kill()
            self.disconnect(lost=True)  # the next connection finds out what has become of the folder
            raise DeviceUnavailable(f"board {self.name}: the agent there was changed or removed while it was in use")
        self._guards.add(process)
        return process

    def end_guard(self, process: GuardedProcess) -> None:
        """End it and the model's process on the board."""
        process.end(END_S)
        self._guards.discard(process)

    def judge(self, failure: JobFailed, process: GuardedProcess) -> OrchestratorError:
        """What a failed request to a guard means: the candidate's failure, the board's, or a full disk."""
        if process.alive:  # so these are the agent's own words
            return self.full(str(failure)) if failure.kind == "surroundings" else failure
        said = process.last_words
        belongs = process in self._guards  # else it was ended with an earlier connection
        if not belongs or any(words in said for words in BROKEN) or not self.alive():
            if belongs:
                self.disconnect(lost=True)
            return self._lost(failure, said)
        if failure.kind == "timeout":
            return failure
        return JobFailed("crash", "the agent that watched the model on the board was ended from outside")

    def _lost(self, failure: JobFailed, said: str) -> DeviceUnavailable:
        """The error for a connection that is gone, with the client's last word where there was one."""
        lines = said.strip().splitlines()
        why = lines[-1].strip() if lines else str(failure) if failure.kind == "timeout" else "it gave no reason"
        return DeviceUnavailable(f"board {self.name}: the connection was lost ({why})")

    # -- files -----------------------------------------------------------------------------------------------------------

    def store(self, path: Path, *, folder: str, name: str, sha256: str, keep: Iterable[str] = ()) -> None:
        """Send a file.

        Args:
            folder: "files" or "wheels".
            keep: Names of stored files that must not be deleted to make room.

        Raises:
            DiskFull: there is no room for it, though older files were deleted.
            DeviceUnavailable: the connection was lost.
        """
        size = path.stat().st_size
        settings = {"folder": folder, "name": name, "size": size, "sha256": sha256, "keep": sorted(keep)}
        script = _launch("store", {**settings, "token": self._token}, system=self._system)
        with tempfile.TemporaryFile() as replies:
            said = self._run(script, source=path, into=replies, timeout_s=ASK_S + size / SLOWEST_BYTES_PER_S)
        if said.get("error") == "full":
            raise self.full(f"{path.name} needs {size / 1e6:.1f} MB")
        if "digest" not in said or "error" in said:
            raise DeviceUnavailable(f"board {self.name}: {path.name} did not arrive whole")

    def fetch(self, remote: str, local: Path) -> None:
        """Get a file of the board's `work` folder.

        Raises:
            DeviceUnavailable: the connection was lost.
        """
        script = _launch("fetch", {"path": remote, "token": self._token}, system=self._system)
        with tempfile.TemporaryFile(dir=local.parent) as replies:
            said = self._run(script, source=None, into=replies, timeout_s=6 * 3600)
            with local.open("wb") as file:
                shutil.copyfileobj(replies, file)
        if local.stat().st_size != said.get("size"):
            local.unlink()
            raise DeviceUnavailable(f"board {self.name}: {local.name} did not arrive whole")

    def _upload_agent(self) -> None:
        part = '"$f/agent.py.$$"'
        script = f'{FOLDER}; mkdir -p "$f" && cat > {part} && mv -f {part} "$f/agent.py" && {_say("stored", "agent")} || '
        script += f"{{ rm -f {part}; {_say('missing', 'space')}; }}"
        with tempfile.TemporaryFile() as replies:
            said = self._run(script, source=AGENT, into=replies, timeout_s=ASK_S)
        if "missing" in said:
            raise self._missing(said["missing"])

    def exists(self) -> bool:
        """Whether our folder is there. Needs nothing but a shell on the board, and keeps no connection."""
        self._folder = self._folder or _short_folder()
        script = f'{FOLDER}; [ -d "$f" ] && {_say("folder", "yes")} || {_say("folder", "no")}'
        try:
            with tempfile.TemporaryFile() as replies:
                return bool(self._run(script, source=None, into=replies, timeout_s=CONNECT_S).get("folder") == "yes")
        finally:
            if self._keeper is None:
                self._forget_folder()

    def _run(self, script: str, *, source: Path | None, into: IO[bytes], timeout_s: float) -> dict[str, Any]:
        """Run a command to its end. Returns its greeting; `into` stands behind it then."""
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
                said: dict[str, Any] = json.loads(line[len(MARKER) :])
                return said
        raise self._complaint(code, child.last_words)


def _short_folder() -> Path:
    """A private folder for the shared connection's socket, whose path may have 100 characters at most."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > LONGEST_BASE:
        base = Path("/tmp")  # noqa: S108 mkdtemp makes the folder private
    _sweep(base)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))


def _sweep(base: Path) -> None:
    """Remove folders of processes that were killed and could not."""
    for folder in base.glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError, ValueError):
            owner = int(folder.name.removeprefix(PREFIX).partition("-")[0])
            if folder.lstat().st_uid == os.getuid() and not psutil.pid_exists(owner) and not _answers(folder / "s"):
                shutil.rmtree(folder)


def _answers(path: Path) -> bool:
    """Whether somebody listens at a socket: the process ids of another container mean nothing here."""
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
