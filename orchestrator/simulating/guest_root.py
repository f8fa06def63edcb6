"""Folders that a guest sees as `/`. Whatever is not in there, qemu's user mode looks for in the machine's own `/`."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.errors import SurroundingsError
from orchestrator.simulating.cpus import Cpu

CORES = 4
WORK = "work"  # the guest's folder for models and answers
PATHS = "site"  # and for wheels

# Files that libraries look for, and that must not be those of this machine: the loader's, the time zone, the system's name.
EMPTY = ("etc/ld.so.cache", "etc/ld.so.preload", "etc/localtime", "etc/nsswitch.conf", "etc/passwd", "etc/os-release")


def link_tree(source: Path, target: Path, *, without: str = "") -> None:
    """Make a copy of a folder, without entries of that name, whose files are hard links, or copies where the disk knows none."""
    ignore = shutil.ignore_patterns(without) if without else None
    shutil.copytree(source, target, symlinks=True, copy_function=link, dirs_exist_ok=True, ignore=ignore)


def link(source: str | Path, target: str | Path) -> None:
    """Hard link a file, or copy it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def describe(cpu: Cpu, root: Path) -> None:
    """Write what runtimes read to learn which CPU this is: onnxruntime crashes where they contradict qemu's `-cpu`."""
    processors = root / "sys/devices/system/cpu"
    for folder in (processors, root / "proc", root / "etc", root / WORK):
        folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {cpu.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: {cpu.variant}\nCPU part\t: {cpu.part}\nCPU revision\t: {cpu.revision}\n\n"
        for core in range(CORES)
    ]
    (root / "proc/cpuinfo").write_text("".join(lines))
    for name in ("possible", "present", "online"):
        (processors / name).write_text(f"0-{CORES - 1}\n")
    (processors / "kernel_max").write_text(f"{CORES - 1}\n")
    for name in EMPTY:
        (root / name).unlink(missing_ok=True)  # it may be a link to another root's
        (root / name).touch()


@contextlib.contextmanager
def temporary(source: Path, packages: Mapping[str, Path], folder: Path) -> Iterator[Path]:
    """A folder with a `root` like `source` that also holds packages ({the guest's path: where it lies}); it goes at the end.

    A root of its own for each emulator lets the guest find everything under paths that are the same everywhere: a longer path
    would put all that is allocated after it elsewhere, and the caches would see that.

    Raises:
        SurroundingsError: the disk is full, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        mine = Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise SurroundingsError(f"cannot write to {folder}: {error.strerror}") from None
    held = os.open(mine, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            link_tree(source, mine / "root", without=PATHS)
            for path, package in packages.items():
                link_tree(package, mine / "root" / path.lstrip("/"))
        except (OSError, shutil.Error) as error:
            raise SurroundingsError(f"cannot make the guest's folder {mine}: {error}") from None
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(held)


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed: nobody holds its lock."""
    for left in folder.iterdir():
        with contextlib.suppress(OSError):
            held = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
