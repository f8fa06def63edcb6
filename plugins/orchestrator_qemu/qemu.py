"""The qemu of this machine, and the counting plugin that is compiled for it."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import EnvironmentFailure

PROGRAM = "qemu-aarch64"
SOURCES = Path(__file__).parent / "plugin"
PLUGIN = ("plugin/counter.c", "plugin/caches.h", "plugin/qemu_api.h")
GUEST = ("guest.py", "server.py", "determinism.py")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
ASK_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Qemu:
    """A qemu-aarch64.

    Attributes:
        command: What starts it: its path, or where it has libraries of its own the loader's path with options before it.
        version: As it says itself ("7.2.22").
    """

    command: tuple[str, ...]
    version: str

    @classmethod
    def of(cls, command: Sequence[str]) -> "Qemu":
        """Ask a qemu for its version and whether it takes plugins.

        Raises:
            EnvironmentFailure: it does not start, is too old, or was built without plugins, as statically linked ones are.
        """
        said = _output([*command, "--version"])
        found = re.search(r"version (\d+)\.(\d+)(\.\d+)?", said)
        if found is None:
            raise EnvironmentFailure(f"{command[-1]} does not tell its version: {said[:200]}")
        qemu = cls(command=tuple(command), version=found[0].removeprefix("version "))
        if qemu.api == 0:
            raise EnvironmentFailure(f"{command[-1]} is version {qemu.version}; simulated execution needs 6.0 or later")
        if "-plugin" not in _output([*command, "--help"]):
            raise EnvironmentFailure(f"{command[-1]} {qemu.version} takes no plugins, as all that are statically linked")
        return qemu

    @classmethod
    def on_path(cls) -> "Qemu":
        """Return the system's qemu.

        Raises:
            EnvironmentFailure: there is none, or it will not do.
        """
        path = shutil.which(PROGRAM)
        if path is None:
            raise EnvironmentFailure(f"{PROGRAM} is not installed (Debian, Ubuntu: the package qemu-user)")
        return cls.of([path])

    @property
    def api(self) -> int:
        """The version of the plugin interface to compile for (see plugin/qemu_api.h); 0: none that is supported."""
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return 0 if major < 6 else 1 if major < 9 else 2 if (major, minor) == (9, 0) else 3


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"{command[0]} does not start: {error}") from None
    return done.stdout + done.stderr


def compile_counter(qemu: Qemu, path: Path) -> None:
    """Compile the counting plugin for that qemu.

    Raises:
        EnvironmentFailure: there is no C compiler, or it fails.
    """
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        raise EnvironmentFailure(
            "the counting plugin is compiled here, but there is no C compiler (Debian, Ubuntu: the package gcc)"
        )
    part = path.with_suffix(".part")
    command = [compiler, *FLAGS, f"-DAPI={qemu.api}", "-o", str(part), str(SOURCES / "counter.c")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        raise EnvironmentFailure(f"{compiler} cannot compile the counting plugin: {lines[0].strip()[:300]}")
    part.replace(path)  # an emulator may have the one before it in use


def source_version(*names: str) -> str:
    """Return the digest of files of this package."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(Path(__file__).parent.joinpath(name).read_bytes())
    return digest.hexdigest()[:12]
