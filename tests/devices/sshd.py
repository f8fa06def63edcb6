"""A board for the tests: a real sshd as an ordinary process on a loopback port, with keys, a folder and a lock of its own."""

import contextlib
import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.devices.agent_session import AGENT

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
FOLDER = "orchestrator-board"


def need_sshd() -> None:
    """Skip without an sshd, but never where everything is checked."""
    if SSHD is None or shutil.which("ssh") is None:
        message = "openssh-server and openssh-client are not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@dataclass
class Board:
    """An sshd, with what a client needs to log in.

    Attributes:
        cache: The board's XDG_CACHE_HOME.
        client: What ORCHESTRATE_SSH must be.
    """

    folder: Path
    port: int
    cache: Path
    settings: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def reference(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.cache / FOLDER

    @property
    def python(self) -> Path:
        return self.home / "venv" / "bin" / "python"

    @property
    def client(self) -> str:
        return f"ssh -F {self.folder / 'client'}"

    @property
    def lock(self) -> Path:
        return self.folder / "board.lock"

    def prepare(self, *, packages: str | None = None) -> None:
        """The virtual environment as set-up leaves it, with this interpreter's packages (or those of another folder)."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.home / "venv"], check=True)
        (site,) = (self.home / "venv" / "lib").glob("python*/site-packages")
        (site / "borrowed.pth").write_text(f"{packages or sysconfig.get_paths()['purelib']}\n")
        shutil.copy(AGENT, self.home / "agent.py")

    def start(self) -> None:
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"PidFile {self.folder / 'pid'}",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            f"SetEnv XDG_CACHE_HOME={self.cache} ORCHESTRATE_BOARD_LOCK={self.lock}",
            *self.settings,
        ]
        (self.folder / "server").write_text("\n".join(lines) + "\n")
        assert SSHD is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "server"], stdin=subprocess.DEVNULL, stderr=log
            )
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def connections(self) -> list[psutil.Process]:
        """The sshd processes of logins."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=False)

    def cut(self) -> None:
        """End all connections at once, as a board that reboots."""
        for process in self.connections():
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in (*[c for c in process.children(recursive=True) if c.name().startswith("sshd")], process):
                    child.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.cut()
            self.process.kill()
            self.process.wait()
            self.process = None

    def agents(self, mode: str | None = None) -> list[psutil.Process]:
        """Processes of ours on the board; `mode` "answer" is a model's."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if str(self.home / "agent.py") in words:
                    after = words[words.index(str(self.home / "agent.py")) + 1 :]
                    if mode is None or (after[0] if after else "answer") == mode:
                        found.append(process)
        return found

    def wait_empty(self, seconds: float = 10.0) -> bool:
        """Whether all of ours have ended on the board before so long."""
        end = time.monotonic() + seconds
        while self.agents():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


def free_port() -> int:
    """A port that nobody takes before it is used: of this test process's own, and none that the system gives to connections."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in random.SystemRandom().sample(range(12000 + 1000 * worker, 13000 + 1000 * worker), 1000):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def key(path: Path) -> Path:
    """A fresh key pair; returns the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub")


@contextlib.contextmanager
def running_board(folder: Path, *settings: str) -> Iterator[Board]:
    """A board that nothing is set up on yet."""
    need_sshd()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir()
    cache = folder / "cache"
    cache.mkdir()
    board = Board(folder=folder, port=free_port(), cache=cache, settings=list(settings))
    shutil.copy(key(folder / "key"), folder / "authorized_keys")
    know(board, key(folder / "host_key"))
    config = [
        "Host alias",
        "HostName 127.0.0.1",
        f"Port {board.port}",
        "Host *",
        f"IdentityFile {folder / 'key'}",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"UserKnownHostsFile {folder / 'known_hosts'}",
        "GlobalKnownHostsFile none",
    ]
    (folder / "client").write_text("\n".join(config) + "\n")
    try:
        board.start()
        yield board
    finally:
        board.stop()
        for process in board.agents():
            with contextlib.suppress(psutil.Error):
                process.kill()


def know(board: Board, public: Path) -> None:
    """Let the client know this host key, and no other."""
    (board.folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {public.read_text()}")
